"""Robust DPO (rDPO): an unbiased estimate of the DPO loss on clean votes from votes of which a known share is flipped.

Chowdhury et al. 2024, arXiv 2403.00409.  Published for language models; this port takes Diffusion-DPO's log-ratio, minus denoising
errors.  The loss of a single pair may be negative; only its mean over flips is the DPO loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from algorithms.dpo import Beta
from algorithms.recipes import SWEPT, TINY, like_dpo
from bench import AlgorithmInfo, BetaScale, PairErrors, PairwiseAlgorithm, Recipe


def rdpo_loss(errors: PairErrors, *, beta: float, flip_probability: float) -> Tensor:
    """``[-(1 - f) log sigmoid(z) + f log sigmoid(-z)] / (1 - 2f)`` with ``z = beta / 2 * margin``, one loss per pair, (B,).

    Args:
        errors: denoising errors, each (B,).
        beta: KL strength; larger stays closer to the reference.
        flip_probability: f, the share of votes that were flipped, below 1/2; 0 is DPO.
    """
    z = 0.5 * beta * errors.margin
    kept, flipped = -functional.logsigmoid(z), -functional.logsigmoid(-z)
    return ((1 - flip_probability) * kept - flip_probability * flipped) / (1 - 2 * flip_probability)


class RobustDPO(PairwiseAlgorithm):
    """DPO corrected for the bias of flipped votes."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="rDPO",
        paper="Chowdhury et al. 2024, arXiv 2403.00409",
        formula="[-(1-f) log sigmoid(z) + f log sigmoid(-z)] / (1-2f), z = beta/2 * [(Ml - Rl) - (Mw - Rw)], f = flip_probability",
        status="matches the paper's formula; a language-model method that we ported to denoising errors",
        beta=BetaScale(0.5, of="margin"),
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 200.0, "flip_probability": 0.1},
            training={**TINY, "learning_rate": 2e-4},
        ),
        **like_dpo(beta=5000.0, flip_probability=0.1),
    }
    initial_loss: ClassVar[float | None] = math.log(2)

    beta: Beta = 2000.0
    flip_probability: float = Field(default=0.1, ge=0, lt=0.5, description="share of votes that were flipped")

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return rdpo_loss(errors, beta=self.beta, flip_probability=self.flip_probability)
