"""The learning-rate schedule: warm-up, then constant or cosine decay."""

from __future__ import annotations

import math

from bench.training.settings import TrainingSettings


def rate_at(settings: TrainingSettings, step: int) -> float:
    """The learning rate of optimizer step ``step`` (0-based): linear warm-up from 0, then constant, or cosine decay towards 0.

    As `diffusers.optimization.get_scheduler` has it in the published scripts, which move the schedule after the optimizer: the
    first step of a warm-up has the rate 0, and step ``warmup_steps`` is the first at the full rate.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    if settings.lr_schedule == "constant":
        return settings.learning_rate
    gone = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * gone))
