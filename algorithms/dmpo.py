"""DMPO: reverse KL divergence from the policy's preference to a nearly certain label, where DPO minimises the forward divergence.

Li et al. 2025, arXiv 2507.07510, without released code; the loss is that of an independent implementation, AIDC-AI/Diffusion-SDPO at
84fb241.  The gradient vanishes for a pair that is ranked far wrong, and the optimal margin is finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from algorithms.dpo import Beta
from algorithms.recipes import SD15, SDXL, SWEPT, TINY
from bench import AlgorithmInfo, BetaScale, PairErrors, PairwiseAlgorithm, Recipe


def dmpo_loss(errors: PairErrors, *, beta: float, log_winner: float, log_loser: float) -> Tensor:
    """``KL(p || label)`` with ``p = sigmoid(beta / 2 * margin)``, one loss per pair, (B,).

    Args:
        errors: denoising errors, each (B,).
        beta: KL strength; larger stays closer to the reference.
        log_winner: log of the label's probability that the winner is preferred; log(1 - alpha) for DMPO, 0 for EXO's unnormalised label.
        log_loser: log of its probability that the loser is preferred; log(alpha) for DMPO, -10 for EXO.
    """
    z = 0.5 * beta * errors.margin
    winner = z.sigmoid() * (functional.logsigmoid(z) - log_winner)
    loser = (-z).sigmoid() * (functional.logsigmoid(-z) - log_loser)
    return winner + loser


class DMPO(PairwiseAlgorithm):
    """Reverse KL divergence to a label that gives the loser the probability ``alpha``."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="DMPO",
        paper="Li et al. 2025, arXiv 2507.07510",
        formula="KL(Bernoulli(sigmoid(beta/2 * [(Ml - Rl) - (Mw - Rw)])) || Bernoulli(1 - alpha))",
        status="reconstructed: matches Diffusion-SDPO's independent implementation; the paper's own loss is unknown to us",
        beta=BetaScale(0.5, of="margin"),
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 200.0, "alpha": 0.01},
            training={**TINY, "learning_rate": 1e-4},
        ),
        "sd15": Recipe(
            source="Diffusion-SDPO's launcher at 84fb241, 8 GPUs: 1e-8 x 2048 (scale_lr); it adds its safeguard, see sdpo",
            algorithm={"beta": 2000.0, "alpha": 0.01},
            training={**SD15, "micro_batch_size": 8, "precision": "bf16"},
        ),
        "sdxl": Recipe(
            source="Diffusion-SDPO's launcher at 84fb241, 8 GPUs: 1e-9 x 2048 (scale_lr); it adds its safeguard, see sdpo",
            algorithm={"beta": 6000.0, "alpha": 0.01},
            training={**SDXL, "learning_rate": 2.048e-6, "warmup_steps": 500},
        ),
    }  # fmt: skip

    beta: Beta = 2000.0
    alpha: float = Field(default=0.01, gt=0, lt=0.5, description="probability of the loser in the label")

    @property
    def initial_loss(self) -> float:
        """The divergence of a fair coin from the label."""
        return -math.log(2) - 0.5 * (math.log1p(-self.alpha) + math.log(self.alpha))

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return dmpo_loss(errors, beta=self.beta, log_winner=math.log1p(-self.alpha), log_loser=math.log(self.alpha))
