"""What a model's sampler and tokenizers do to fixed inputs, as digests; see `bench.core.probes` for other libraries."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from bench.core.randomness import normal, step_generators
from bench.core.values import digest
from bench.models.family import ModelFamily
from bench.models.sampling import build_scheduler
from bench.records.protocol import GenerationSettings

STEPS = 4
"""Steps that are taken: beyond the first ones of samplers of the third order."""

NUMBERS = 2
"""Numbers that are denoised."""
DIGITS = 3
"""Significant digits that count.  Processors differ in the seventh, so that a result lies too near to a boundary once in 10,000."""


def sampler_digest(settings: GenerationSettings, model: ModelFamily) -> str:
    """Digest of a sampler's timesteps and of its first steps on fixed numbers; 12 hex digits.

    Raises:
        UserError: see `bench.models.sampling.build_scheduler`.
    """
    scheduler: Any = build_scheduler(settings, model)
    latents = normal((1, 1, 1, NUMBERS), "sampler probe")
    draws = "generator" in inspect.signature(scheduler.step).parameters
    generators = step_generators([("sampler probe",)])
    found = [[f"{t:.5g}" for t in scheduler.timesteps.tolist()]]
    for number, t in enumerate(scheduler.timesteps[:STEPS]):
        inputs = scheduler.scale_model_input(latents, t) if hasattr(scheduler, "scale_model_input") else latents
        noise = {"generator": generators(number)} if draws else {}
        latents = scheduler.step(inputs.flip(-1) * 0.5, t, latents, **noise).prev_sample
        found.append(_rounded(latents))
    return digest(found)


TEXTS = (
    "",
    "a bee on a yellow background",
    "A photo of two cats, 4k;",
    "(((sharp:1.2))), don't",
    "Élan vital in İstanbul",
    "東京 with a \U0001f431",
    "&amp; ﬁne   under_score",
    "word " * 300,
)
"""What is tokenized: nothing, a plain caption, punctuation, text beyond ASCII, and more than any text encoder takes.

All but the last are so short that a tokenizer which cuts at 32 tokens, and makes a token of each character, cuts none.
"""


def tokenizers_digest(model: ModelFamily) -> str:
    """Digest of the tokens that a model's own tokenizers make of a few texts; 12 hex digits.

    The same files give other tokens under a library that reads them differently.
    """
    return digest(model.tokens(TEXTS))


def _rounded(values: torch.Tensor) -> list[str]:
    return [f"{value:.{DIGITS}g}" for value in values.double().flatten().tolist()]
