"""The noise that evaluation images start from, and that some samplers add on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from bench.core.randomness import normal, step_generators
from bench.models.sampling import StepGenerators
from bench.records.protocol import GenerationSettings


def evaluation_noise(settings: GenerationSettings, prompt: str, image_index: int, shape: Sequence[int]) -> torch.Tensor:
    """The noise that an image starts from: a function of prompt, index and seed only; float32, of ``shape``."""
    return normal(shape, "evaluation", settings.seed, prompt, image_index)


def evaluation_generators(settings: GenerationSettings, images: Iterable[tuple[str, int]]) -> StepGenerators:
    """What a sampler draws from at every step, for each image (prompt, index): a function of these, step and seed only."""
    return step_generators([("evaluation sampler", settings.seed, prompt, index) for prompt, index in images])
