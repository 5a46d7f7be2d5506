"""Can be imported and run, but each breaks a contract: what `bench check` is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from PIL import Image, ImageStat
from torch import Tensor

from bench import AlgorithmInfo, Metric, MetricInfo, PairErrors, PairwiseAlgorithm

INFO = AlgorithmInfo(title="Wrong", paper="none, 2026", formula="-M", status="broken on purpose")


class Averaged(PairwiseAlgorithm):
    """Returns the mean of the batch, not a loss per pair."""

    info: ClassVar[AlgorithmInfo] = INFO

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return -errors.margin.mean()


class Neighbourly(PairwiseAlgorithm):
    """Weighs a pair by the others of its micro-batch."""

    info: ClassVar[AlgorithmInfo] = INFO

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return -1000 * errors.margin + errors.policy_winner.mean().detach()


class NotANumber(PairwiseAlgorithm):
    """Divides 0 by 0 at the start, where policy and reference are alike."""

    info: ClassVar[AlgorithmInfo] = INFO

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return -errors.margin / errors.margin.abs()


class Relative(Metric):
    """Scores an image against the others of the call."""

    info: ClassVar[MetricInfo] = MetricInfo(title="relative", raw_range="any", unit="grey level", source="nowhere")
    reads_prompt: ClassVar[bool] = False

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        return cls()

    def identity(self) -> dict[str, Any]:
        return {"version": 1}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        levels = torch.tensor([ImageStat.Stat(image.convert("L")).mean[0] for image in images])
        return levels - levels.mean()


class Unscored(Relative):
    """Has no number for any image."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return torch.full((len(images),), torch.nan)
