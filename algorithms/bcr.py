"""Budget-controlled regularisation (BCR): DPO, and a penalty on winners whose error grows by more than a budget.

Chen et al. 2024, arXiv 2411.05875, a method for language models without released code.  Only the abstract was readable, so the
formula is reconstructed: the drop of the winner's log-likelihood becomes the growth of its denoising error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from algorithms.dpo import Beta, dpo_loss
from algorithms.recipes import SWEPT, TINY, like_dpo
from bench import AlgorithmInfo, BetaScale, PairErrors, PairwiseAlgorithm, Recipe


def bcr_loss(errors: PairErrors, *, beta: float, penalty: float, delta: float) -> Tensor:
    """``-log sigmoid(beta / 2 * margin) + penalty * max(0, Mw - Rw - delta)``, one loss per pair, (B,).

    Args:
        errors: denoising errors, each (B,).
        beta: KL strength; larger stays closer to the reference.
        penalty: slope of the penalty; of the order of ``beta / 2``, which is the steepest slope of the first term.
        delta: growth of the winner's error that is not penalised, in units of mean squared errors; 0 allows none.
    """
    return dpo_loss(errors, beta=beta) + penalty * (errors.winner_gap - delta).relu()


class BCR(PairwiseAlgorithm):
    """DPO that penalises a winner whose error grows by more than a budget."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="BCR",
        paper="Chen et al. 2024, arXiv 2411.05875",
        formula="-log sigmoid(beta/2 * [(Ml - Rl) - (Mw - Rw)]) + lambda * max(0, Mw - Rw - delta)",
        status="reconstructed from the abstract; a language-model method that we ported to denoising errors; published lambda and delta are unknown",
        beta=BetaScale(0.5, of="margin"),
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=f"{SWEPT}; delta is the upper quartile of Mw - Rw in a dpo run of 25 steps",
            algorithm={"beta": 200.0, "penalty": 100.0, "delta": 6e-4},
            training={**TINY, "learning_rate": 2e-4},
        ),
        **like_dpo(beta=5000.0, penalty=2500.0, delta=6e-4),
    }
    initial_loss: ClassVar[float | None] = math.log(2)

    beta: Beta = 2000.0
    penalty: float = Field(default=1000.0, ge=0, description="lambda, slope of the penalty; of the order of beta/2")
    delta: float = Field(
        default=6e-4, ge=0, description="delta, growth of the winner's error that is not penalised (mean squared error)"
    )

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return bcr_loss(errors, beta=self.beta, penalty=self.penalty, delta=self.delta)
