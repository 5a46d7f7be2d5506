"""MaPO: margin-aware preference optimisation without a reference, as in the second version of its paper.

Hong et al. 2024, arXiv 2406.06424 v2.  The released code, mapo-t2i/mapo at 374b3d3d, implements the first version, which is
a different loss: see `algorithms.mapo_v1`.  Where the exponent beta belongs was inferred from the paper's layout, its bound (0, 1) and its gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from algorithms.recipes import SWEPT, TINY
from bench import AlgorithmInfo, PolicyErrors, Recipe, ReferenceFreeAlgorithm

SMALL = 0.05
"""Below this, the series of `likelihood` is exact to 1e-13; above, the formula does not suffer from cancellation."""


def likelihood(error: Tensor, *, power: float) -> Tensor:
    """``(e / (exp(e) - 1))^power`` of errors e >= 0: 1 at an error of 0, decreasing to 0; same shape.

    Finite with finite gradients everywhere, where the plain formula is 0/0 at 0 and inf/inf at large errors.
    """
    # Clamp the input of each branch to its own range: torch.where would propagate the other branch's infinite gradient as 0 * inf.
    small, large = error.clamp(max=SMALL), error.clamp(min=SMALL)
    series = -small / 2 - small.square() / 24 + small.square().square() / 2880
    logarithm = torch.where(error < SMALL, series, large.log() - large - (-torch.expm1(-large)).log())
    return (power * logarithm).exp()


def mapo_loss(errors: PolicyErrors, *, beta: float) -> Tensor:
    """``Mw - log sigmoid(phi(Mw) - phi(Ml)) / beta`` with ``phi(e) = (e / (exp(e) - 1))^beta``, one loss per pair, (B,).

    Args:
        errors: denoising errors of the policy, each (B,).
        beta: sharpness of phi.
    """
    gap = likelihood(errors.winner, power=beta) - likelihood(errors.loser, power=beta)
    return errors.winner - functional.logsigmoid(gap) / beta


class MaPO(ReferenceFreeAlgorithm):
    """The winner's error plus a bounded margin over the loser's."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="MaPO",
        paper="Hong et al. 2024, arXiv 2406.06424 v2",
        formula="Mw - log sigmoid(phi(Mw) - phi(Ml)) / beta, phi(e) = (e / (exp(e) - 1))^beta",
        status="matches the paper's formula (v2), with the position of its exponent reconstructed; the released code is mapo-v1",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 8.0},
            training={**TINY, "learning_rate": 1e-4},
        ),
        "sdxl": Recipe(
            source="paper v2: 8 H100, 2048 = 32 x 8 x 8, 8-bit AdamW; here AdamW (see optimizer=adamw-8bit) and bf16",
            algorithm={"beta": 8.0},
            training={"steps": 2000, "global_batch_size": 2048, "micro_batch_size": 1, "learning_rate": 1e-7, "lr_schedule": "cosine", "warmup_steps": 0,
                      "caption_dropout": 0.0, "horizontal_flip": "pair", "precision": "bf16", "gradient_checkpointing": True},
        ),
    }  # fmt: skip

    beta: float = Field(
        default=8.0, gt=0, description="sharpness of phi; the paper uses 8 to 1024, depending on the task"
    )

    def loss(self, errors: PolicyErrors, preference: Tensor) -> Tensor:
        return mapo_loss(errors, beta=self.beta)
