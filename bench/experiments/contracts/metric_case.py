"""A loaded metric with pictures and prompts: what its contracts look at."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.experiments.contracts.contract import Contract
from bench.models.registry import MODELS
from bench.prompts.reading import read_prompts
from bench.scoring.metric import Metric

CPU = torch.device("cpu")
SIZES = ((64, 64), (96, 64), (50, 70), (131, 97), (64, 64), (40, 120), (80, 80), (64, 48))
"""Width and height of the pictures, in pixels."""


@dataclasses.dataclass(frozen=True)
class MetricCase:
    """A loaded metric with pictures and prompts.

    Attributes:
        metric: it, bound to the prompts.
        again: loads the same one another time.
        load: loads one from a checkpoint.
        given: whether the checkpoint was named, not the published default.
        images: pictures of different sizes.
        prompts: one for each, all different.
    """

    metric: Metric
    again: Callable[[], Metric]
    load: Callable[[str | None], Metric]
    given: bool
    images: Sequence[Image.Image]
    prompts: Sequence[str]

    @functools.cached_property
    def scores(self) -> Tensor:
        """The scores of all pictures for their prompts."""
        return self.metric.score(self.images, self.prompts)

    @property
    def rounding(self) -> float:
        """How far apart scores may be that differ by rounding alone: 1e-5, or of large scores that share of the largest."""
        return 1e-5 * max(1.0, self.scores.abs().max().item())


def contract(check: Callable[[MetricCase], str | None]) -> Contract[MetricCase]:
    """Make a contract of a function."""
    return Contract(check)


def pictures() -> list[Image.Image]:
    """RGB pictures of several sizes: waves of colour with a little noise."""
    made = []
    for number, (width, height) in enumerate(SIZES):
        draws = np.random.default_rng(number)
        rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        phases, pace = draws.uniform(0, 6.28, 3), draws.uniform(2, 12, (3, 2))
        waves = np.stack([np.sin(a * rows + b * columns + c) for (a, b), c in zip(pace, phases, strict=True)], axis=-1)
        noisy = 127.5 + 110 * waves + draws.normal(0, 8, waves.shape)
        made.append(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    return made


def tiny_prompts(count: int) -> list[str]:
    """The first prompts of the tiny model, which every metric can read, even one that knows its world alone."""
    source = MODELS.get("tiny").prompts
    if source is None:
        raise ValueError("the tiny model has no prompts")
    return list(dict.fromkeys(read_prompts(Path(source))))[:count]
