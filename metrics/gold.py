"""Gold: the tiny world's true expected utility, which a real benchmark cannot have.

It shows over-optimisation (a proxy rises while gold falls).  No recipe trains on it, and a row that does is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench import Metric, MetricInfo, UserError, digest
from bench.tiny.checker import Checker, to_unit_pixels
from bench.tiny.voters import SIZE_SLACK, TASTE, expected_utility, properties
from bench.tiny.world import caption_problem, parse_caption


class Gold(Metric):
    """Mean utility over the voter population, from properties that the world's checker measures; for the tiny world only."""

    info: ClassVar[MetricInfo] = MetricInfo(
        title="gold",
        raw_range="-1.8 to 18",
        unit="mean utility of the voter population",
        source="the tiny world of this package: bench.tiny.voters",
        conventions="defined by this package",
    )

    def __init__(self, checker: Checker, weights: str) -> None:
        self._checker, self._weights = checker, weights

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        if checkpoint is None:
            raise UserError(
                "metric 'gold' knows the truth for the tiny world only; use --model tiny, or leave gold out"
            )
        file = Path(checkpoint) / "checker.safetensors"
        if not file.is_file():
            raise UserError(
                f"{file} does not exist; install the package again, or rebuild it: python -m bench.tiny.build"
            )
        # Not weights_digest, which the other scorers use: existing records hold this form of the digest.
        return cls(Checker.load(checkpoint), digest(file.read_bytes().hex()))

    def identity(self) -> dict[str, Any]:
        return {"version": 2, "weights": self._weights, "voters": digest([TASTE, SIZE_SLACK])}

    def for_prompts(self, prompts: Sequence[str]) -> Metric:
        """Refuses prompts that are not captions of the tiny world before any image is generated.

        Raises:
            UserError: a prompt is not one of those captions.
        """
        for prompt in prompts:
            if problem := caption_problem(prompt):
                raise UserError(
                    f"metric 'gold' cannot score {prompt!r}, which {problem}; write it as 'a large bee on a red background' "
                    "(bench list prompts tiny shows all words), or leave gold out: --metrics pickscore,hpsv2,imagereward,aesthetic"
                )
        return self

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """See `Metric`."""
        self.for_prompts(prompts)
        measured = self._checker.measure(to_unit_pixels(list(images)))
        rows = []
        for index, prompt in enumerate(prompts):
            if request := parse_caption(prompt):
                rows.append(properties(request, measured, index))
        return torch.from_numpy(expected_utility(np.stack(rows))).float()
