"""The noise that evaluation images start from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.core.randomness import normal
from bench.records.protocol import GenerationSettings


def evaluation_noise(settings: GenerationSettings, prompt: str, image_index: int, shape: Sequence[int]) -> torch.Tensor:
    """The noise that an image starts from: a function of prompt, index and seed only; float32, of ``shape``."""
    return normal(shape, "evaluation", settings.seed, prompt, image_index)
