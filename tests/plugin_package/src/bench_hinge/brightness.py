"""The mean brightness of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from PIL import Image, ImageStat

from bench import Metric, MetricInfo


class Brightness(Metric):
    """Brighter is better; needs no checkpoint."""

    info: ClassVar[MetricInfo] = MetricInfo(
        title="brightness", raw_range="0 to 255", unit="grey level", source="an example"
    )

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        return cls()

    def identity(self) -> dict[str, Any]:
        return {"version": 1}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([ImageStat.Stat(image.convert("L")).mean[0] for image in images])
