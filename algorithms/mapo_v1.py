"""MaPO as in its released code, which is the first version of the paper: beta is the weight of the margin, not an exponent.

Hong et al. 2024, arXiv 2406.06424 v1; released code mapo-t2i/mapo at 374b3d3d.  That code divides 0 by 0 at an error of 0; this one does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from algorithms.mapo import likelihood
from algorithms.recipes import SWEPT, TINY
from bench import AlgorithmInfo, PolicyErrors, Recipe, ReferenceFreeAlgorithm


def mapo_v1_loss(errors: PolicyErrors, *, beta: float, snr: float, margin_scale: float) -> Tensor:
    """``Mw - beta log sigmoid(T (phi(c Mw) - phi(c Ml)))`` with ``phi(e) = e / (exp(e) - 1)``, one loss per pair, (B,).

    Args:
        errors: denoising errors of the policy, each (B,).
        beta: weight of the margin.
        snr: c, the factor on the errors, ``snr_value`` in the released code.
        margin_scale: T; at the released 1000 the sigmoid saturates at small margins, which leaves SFT on the winner.
    """
    gap = likelihood(snr * errors.winner, power=1.0) - likelihood(snr * errors.loser, power=1.0)
    return errors.winner - beta * functional.logsigmoid(margin_scale * gap)


class MaPOv1(ReferenceFreeAlgorithm):
    """The winner's error plus a steep margin over the loser's."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="MaPO (v1)",
        paper="Hong et al. 2024, arXiv 2406.06424 v1",
        formula="Mw - beta log sigmoid(margin_scale [phi(snr Mw) - phi(snr Ml)]), phi(e) = e / (exp(e) - 1)",
        status="matches released code; the paper's second version is mapo",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 0.1, "snr": 0.5, "margin_scale": 1000.0},
            training={**TINY, "learning_rate": 1e-4},
        ),
        "sdxl": Recipe(
            source="released README: batch 8 x 2, true sizes; with AdamW (see optimizer=adamw-8bit) and bf16 here, 8-bit AdamW and fp16 there",
            algorithm={"beta": 0.1, "snr": 0.5, "margin_scale": 1000.0},
            training={"steps": 2000, "global_batch_size": 16, "micro_batch_size": 1, "learning_rate": 1e-5, "warmup_steps": 0,
                      "caption_dropout": 0.0, "horizontal_flip": "pair", "precision": "bf16", "gradient_checkpointing": True},
        ),
    }  # fmt: skip

    beta: float = Field(default=0.1, gt=0, description="weight of the margin")
    snr: float = Field(default=0.5, gt=0, description="c, factor on the errors inside phi")
    margin_scale: float = Field(default=1000.0, gt=0, description="T, factor on the margin inside the sigmoid")

    def loss(self, errors: PolicyErrors, preference: Tensor) -> Tensor:
        return mapo_v1_loss(errors, beta=self.beta, snr=self.snr, margin_scale=self.margin_scale)
