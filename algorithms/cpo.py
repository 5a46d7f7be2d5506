"""CPO: contrastive preference optimisation without a reference, regularised by the denoising loss on winners.

Xu et al. 2024, arXiv 2401.08417.  Published for language models; this port replaces the log-likelihood by minus a denoising error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from algorithms.recipes import SWEPT, TINY, like_dpo
from bench import AlgorithmInfo, PolicyErrors, Recipe, ReferenceFreeAlgorithm


def cpo_loss(errors: PolicyErrors, *, beta: float, sft_weight: float) -> Tensor:
    """``-log sigmoid(beta (Ml - Mw)) + sft_weight * Mw``, one loss per pair, (B,).

    Args:
        errors: denoising errors of the policy, each (B,).
        beta: scale of the difference of the two errors.
        sft_weight: weight of the winner's error; at ``beta / 2`` both terms have equal gradients when the two errors are equal.
    """
    return -functional.logsigmoid(beta * (errors.loser - errors.winner)) + sft_weight * errors.winner


class CPO(ReferenceFreeAlgorithm):
    """DPO with a uniform reference, and supervised fine-tuning on the winner."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="CPO",
        paper="Xu et al. 2024, arXiv 2401.08417",
        formula="-log sigmoid(beta (Ml - Mw)) + lambda * Mw",
        status="matches the paper's formula; a language-model method that we ported to denoising errors",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 2.5, "sft_weight": 1.25},
            training={**TINY, "learning_rate": 1e-4},
        ),
        **like_dpo(beta=100.0, sft_weight=50.0),
    }

    beta: float = Field(default=100.0, gt=0, description="scale of the difference of the mean squared errors")
    sft_weight: float = Field(default=50.0, ge=0, description="lambda, weight of the winner's denoising error")

    def loss(self, errors: PolicyErrors, preference: Tensor) -> Tensor:
        return cpo_loss(errors, beta=self.beta, sft_weight=self.sft_weight)
