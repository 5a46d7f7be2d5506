"""DPO plus the denoising loss on winners, so the margin does not grow at the cost of the winner's quality.

Pang et al. 2024, arXiv 2404.19733, and Liu et al. 2024, arXiv 2405.16436, both for language models; this port replaces the
winner's negative log-likelihood by its denoising error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from algorithms.dpo import Beta, dpo_loss
from algorithms.recipes import SWEPT, TINY, like_dpo
from bench import AlgorithmInfo, BetaScale, PairErrors, PairwiseAlgorithm, Recipe


def dpo_sft_loss(errors: PairErrors, *, beta: float, sft_weight: float) -> Tensor:
    """``-log sigmoid(beta / 2 * margin) + sft_weight * Mw``, one loss per pair, (B,).

    Args:
        errors: denoising errors, each (B,).
        beta: KL strength; larger stays closer to the reference.
        sft_weight: weight of the winner's error; at ``beta / 4`` both terms have equal gradients at the start.
    """
    return dpo_loss(errors, beta=beta) + sft_weight * errors.policy_winner


class DPOWithSFT(PairwiseAlgorithm):
    """DPO and supervised fine-tuning in one loss."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="DPO + SFT",
        paper="Pang et al. 2024, arXiv 2404.19733; Liu et al. 2024, arXiv 2405.16436",
        formula="-log sigmoid(beta/2 * [(Ml - Rl) - (Mw - Rw)]) + lambda * Mw",
        status="matches the papers' formula; a language-model method that we ported to denoising errors",
        beta=BetaScale(0.5, of="margin"),
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=f"{SWEPT}; both terms pull equally hard at the start",
            algorithm={"beta": 50.0, "sft_weight": 12.5},
            training={**TINY, "learning_rate": 1e-4},
        ),
        **like_dpo(beta=5000.0, sft_weight=1250.0),
    }

    beta: Beta = 2000.0
    sft_weight: float = Field(default=500.0, ge=0, description="lambda, weight of the winner's denoising error")

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return dpo_sft_loss(errors, beta=self.beta, sft_weight=self.sft_weight)
