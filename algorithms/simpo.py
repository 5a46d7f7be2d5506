"""SimPO: preference optimisation without a reference, with a target margin.

Meng et al. 2024, arXiv 2405.14734.  Published for language models; this port replaces the mean log-likelihood by minus the mean denoising
error.  Without a reference nothing keeps the winner's error low: watch ``winner_error`` in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from algorithms.recipes import SWEPT, TINY, like_dpo
from bench import AlgorithmInfo, PolicyErrors, Recipe, ReferenceFreeAlgorithm


def simpo_loss(errors: PolicyErrors, *, beta: float, gamma: float) -> Tensor:
    """``-log sigmoid(beta (Ml - Mw) - gamma)``, one loss per pair, (B,).

    Args:
        errors: denoising errors of the policy, each (B,).
        beta: scale of the difference of the two errors.
        gamma: margin by which the scaled difference must win.
    """
    return -functional.logsigmoid(beta * (errors.loser - errors.winner) - gamma)


class SimPO(ReferenceFreeAlgorithm):
    """The loser's error should exceed the winner's by ``gamma / beta``."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="SimPO",
        paper="Meng et al. 2024, arXiv 2405.14734",
        formula="-log sigmoid(beta (Ml - Mw) - gamma)",
        status="matches the paper's formula; a language-model method that we ported to denoising errors",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 2.5, "gamma": 0.0125},
            training={**TINY, "learning_rate": 1e-4},
        ),
        **like_dpo(beta=100.0, gamma=0.5),
    }

    beta: float = Field(default=100.0, gt=0, description="scale of the difference of the mean squared errors")
    gamma: float = Field(default=0.5, ge=0, description="margin by which the scaled difference must win")

    def loss(self, errors: PolicyErrors, preference: Tensor) -> Tensor:
        return simpo_loss(errors, beta=self.beta, gamma=self.gamma)
