"""The learning-rate schedule: warm-up, then constant or cosine decay."""

from __future__ import annotations

import math

from bench.training.settings import TrainingSettings


def rate_at(settings: TrainingSettings, step: int) -> float:
    """The learning rate of optimizer step ``step`` (0-based): linear warm-up, then constant, or cosine decay towards 0."""
    if step < settings.warmup_steps or settings.lr_schedule == "constant":
        return settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    gone = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * gone))
