"""A loaded metric with images and prompts, on which its contracts are checked."""

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
"""Width and height of the images, in pixels."""


@dataclasses.dataclass(frozen=True)
class MetricCase:
    """A loaded metric with images and prompts.

    Attributes:
        metric: the metric, bound to the prompts.
        again: loads a second copy of it.
        load: loads one from a checkpoint.
        given: whether the user named the checkpoint; if not, it is the published default.
        images: images of different sizes.
        prompts: one prompt per image, all different.
    """

    metric: Metric
    again: Callable[[], Metric]
    load: Callable[[str | None], Metric]
    given: bool
    images: Sequence[Image.Image]
    prompts: Sequence[str]

    @functools.cached_property
    def scores(self) -> Tensor:
        """The scores of all images for their prompts."""
        return self.metric.score(self.images, self.prompts)

    @property
    def rounding(self) -> float:
        """Tolerance for scores that differ only by rounding: 1e-5, or that share of the largest score if it is above 1."""
        return 1e-5 * max(1.0, self.scores.abs().max().item())


def contract(check: Callable[[MetricCase], str | None]) -> Contract[MetricCase]:
    """Make a contract of a function."""
    return Contract(check)


def pictures() -> list[Image.Image]:
    """RGB images of several sizes: waves of colour with a little noise."""
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
    """The first prompts of the tiny model, which every metric can read, even one that knows only the tiny world."""
    source = MODELS.get("tiny").prompts
    if source is None:
        raise ValueError("the tiny model has no prompts")
    return list(dict.fromkeys(read_prompts(Path(source))))[:count]
