"""Hinge loss on the preference margin: pairs that are won by a large enough margin have no gradient.

Zhao et al. 2023 (SLiC-HF), arXiv 2305.10425; with the reference inside the margin, Liu et al. 2023 (RSO), arXiv 2309.06657.
Released for diffusion as ``--loss_type hinge`` of diffusers' Diffusion-DPO script for SD1.5, whose beta is half of this project's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from algorithms.recipes import SWEPT, TINY, like_dpo
from bench import AlgorithmInfo, BetaScale, PairErrors, PairwiseAlgorithm, Recipe


def hinge_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """``max(0, 1 - beta / 2 * margin)``, one loss per pair, (B,).

    Args:
        errors: denoising errors, each (B,).
        beta: inverse width: the gradient is zero beyond a margin of ``2 / beta``.
    """
    return (1 - 0.5 * beta * errors.margin).relu()


class Hinge(PairwiseAlgorithm):
    """DPO with the hinge loss in place of the logistic loss."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Hinge",
        paper="Zhao et al. 2023, arXiv 2305.10425; Liu et al. 2023, arXiv 2309.06657",
        formula="max(0, 1 - beta/2 * [(Ml - Rl) - (Mw - Rw)])",
        status="matches released code (diffusers' train_diffusion_dpo.py, whose beta is half of this project's)",
        beta=BetaScale(0.5, of="margin"),
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 200.0},
            training={**TINY, "learning_rate": 1e-4},
        ),
        **like_dpo(beta=5000.0),
    }
    initial_loss: ClassVar[float | None] = 1.0

    beta: float = Field(
        default=2000.0,
        gt=0,
        description="the gradient is zero beyond the margin 2/beta; loss uses beta/2 x mean squared errors (see docs/beta.md)",
    )

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return hinge_loss(errors, beta=self.beta)
