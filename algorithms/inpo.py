"""DDIM-InPO: the DPO objective on latents from inversion by the policy itself.

Lu et al. 2025, arXiv 2503.18454; released code JaydenLyh/InPO at a9cfc4de.  The released code ends its inversion up to one grid
step beyond the time passed to the networks, and calls the network at negative times; ``inversion="official"`` reproduces that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from algorithms.dpo import Beta, dpo_loss
from algorithms.inverted import invert_pair
from algorithms.recipes import SD15, SDXL, SWEPT, TINY
from bench import (
    AlgorithmInfo,
    BetaScale,
    Endpoint,
    InversionSettings,
    Noised,
    PairBatch,
    PairErrors,
    PairwiseAlgorithm,
    Policy,
    Recipe,
)


class InPO(PairwiseAlgorithm):
    """DPO whose noisy latents come from DDIM inversion by the current policy."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="DDIM-InPO",
        paper="Lu et al. 2025, arXiv 2503.18454",
        formula="-log sigmoid(beta/2 * [(Ml - Rl) - (Mw - Rw)]) with x_t and its noise from DDIM inversion",
        status="matches released code, except for its inversion errors (inversion=official reproduces them)",
        beta=BetaScale(0.5, of="margin"),
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 50.0, "inversion_steps": 5},
            training={**TINY, "steps": 60, "learning_rate": 2e-4},
        ),
        "sd15": Recipe(
            source="released launcher at a9cfc4de: 1e-8 x 1024 (scale_lr); it starts from an SFT checkpoint",
            algorithm={"beta": 2000.0},
            training={**SD15, "steps": 400, "global_batch_size": 1024, "learning_rate": 1.024e-5, "warmup_steps": 200},
        ),
        "sdxl": Recipe(
            source="released SDXL launcher at a9cfc4de: 1e-8 x 1024 (scale_lr); with bf16 here, fp16 there",
            algorithm={"beta": 5000.0, "inversion_steps": 10},
            training={**SDXL, "steps": 400, "global_batch_size": 1024, "learning_rate": 1.024e-5},
        ),
    }  # fmt: skip
    initial_loss: ClassVar[float | None] = math.log(2)

    beta: Beta = 2000.0
    inversion_steps: int = Field(
        default=10,
        ge=2,
        le=500,
        description="number of steps in the inversion grid over all times; more where it does not divide their number",
    )
    inversion: Endpoint = Field(
        default="grid", description="where an inversion ends: grid, exact, or official (released code)"
    )
    eta: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="noise added after each inversion step, as a share of the DDPM standard deviation",
    )

    def noised(self, batch: PairBatch, policy: Policy) -> Noised:
        return invert_pair(batch, policy, InversionSettings(self.inversion_steps, self.inversion, eta=self.eta))

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return dpo_loss(errors, beta=self.beta)
