"""IPO: regress the preference margin to a fixed value, so a certain vote does not push the margin without bound.

Azar et al. 2023, arXiv 2310.12036, eq. 17.  Published for language models; this port takes minus a denoising error as the log-ratio.  The
branch of that name in diffusers' Diffusion-DPO script reads an argument that does not exist, so there is no released code to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from algorithms.recipes import SWEPT, TINY, like_dpo
from bench import AlgorithmInfo, PairErrors, PairwiseAlgorithm, Recipe


def ipo_loss(errors: PairErrors, *, tau: float) -> Tensor:
    """``(margin - 1 / (2 tau))^2``, one loss per pair, (B,).

    Args:
        errors: denoising errors, each (B,).
        tau: KL strength; larger stays closer to the reference.  The target margin, ``1 / (2 tau)``, is in units of mean squared errors,
            so useful values are in the hundreds.
    """
    return (errors.margin - 1 / (2 * tau)).square()


class IPO(PairwiseAlgorithm):
    """Squared distance of the margin from its target."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="IPO",
        paper="Azar et al. 2023, arXiv 2310.12036",
        formula="([(Ml - Rl) - (Mw - Rw)] - 1/(2 tau))^2",
        status="matches the paper's formula; a language-model method that we ported to denoising errors",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"tau": 12.5},
            training={**TINY, "learning_rate": 2e-4},
        ),
        **like_dpo(tau=1250.0),
    }

    tau: float = Field(
        default=500.0,
        gt=0,
        description="KL strength: larger stays closer to the reference; the target margin is 1/(2 tau)",
    )

    @property
    def initial_loss(self) -> float:
        """The squared target: the margin starts at 0."""
        return (1 / (2 * self.tau)) ** 2

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return ipo_loss(errors, tau=self.tau)
