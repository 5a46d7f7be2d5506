"""SmPO-Diffusion: smoothed preferences from a reward model, on latents from ReNoise inversion by the policy.

Lu et al. 2025 (ICML), arXiv 2506.02698; released code JaydenLyh/SmPO at 8922d54f.  That code weights a whole batch by the label
of its first pair; this port weights every pair by its own.  Only ``inversion="official"`` reproduces its inversion errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from algorithms.dpo import Beta
from algorithms.inverted import invert_pair
from algorithms.recipes import SD15, SDXL, SWEPT, TINY
from bench import (
    AlgorithmInfo,
    BetaScale,
    Endpoint,
    InversionSettings,
    Need,
    Noised,
    PairBatch,
    PairErrors,
    PairwiseAlgorithm,
    Policy,
    PreferenceData,
    PrepareContext,
    Recipe,
    Renoise,
    UserError,
)


def smpo_loss(errors: PairErrors, preference: Tensor, *, beta: float, gamma: float) -> Tensor:
    """``-log sigmoid(gamma (2p - 1) * beta / 2 * margin)``, one loss per pair, (B,).

    Args:
        errors: denoising errors, each (B,).
        preference: p = P(winner preferred), (B,).
        beta: KL strength; larger stays closer to the reference.
        gamma: scale of the smoothed label; ``gamma (2p - 1)`` is the paper's ``2 alpha - gamma``, and 1 recovers DPO.
    """
    return -functional.logsigmoid(gamma * (2 * preference - 1) * 0.5 * beta * errors.margin)


class SmPO(PairwiseAlgorithm):
    """The winner is the image with the higher reward; the weight of a pair grows with the reward difference."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="SmPO",
        paper="Lu et al. 2025, arXiv 2506.02698",
        formula="-log sigmoid(gamma (2p-1) * beta/2 * [(Ml - Rl) - (Mw - Rw)]), p = sigmoid(r'_w - r'_l)",
        status="matches released code, except for its batch weighting and inversion errors (inversion=official reproduces the latter)",
        beta=BetaScale(5.0, of="margin"),  # gamma / 2; times 2p - 1, which is at most 0.46
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.REFERENCE, Need.REWARD})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 50.0, "inversion_steps": 10},
            training={**TINY, "steps": 30, "learning_rate": 1e-4},
        ),
        "sd15": Recipe(
            source="released launcher at 8922d54f: 1e-8 x 1024 (scale_lr); it starts from an SFT checkpoint",
            algorithm={"beta": 2000.0, "inversion_steps": 5},
            training={**SD15, "steps": 200, "global_batch_size": 1024, "learning_rate": 1.024e-5, "warmup_steps": 100},
        ),
        "sdxl": Recipe(
            source="released SDXL launcher at 8922d54f: 1e-8 x 1024 (scale_lr), from the base; with bf16 here, fp16 there",
            algorithm={"beta": 5000.0, "inversion_steps": 10},
            training={**SDXL, "steps": 200, "global_batch_size": 1024, "learning_rate": 1.024e-5, "warmup_steps": 100},
        ),
    }  # fmt: skip
    initial_loss: ClassVar[float | None] = math.log(2)
    placebo: ClassVar[str | None] = "the rewards of each pair's images are swapped with probability 1/2"

    beta: Beta = 2000.0
    gamma: float = Field(default=10.0, gt=0, description="scale of the smoothed label")
    reward: str = Field(default="pickscore", description="metric whose scores smooth the labels")
    inversion_steps: int = Field(
        default=10,
        ge=2,
        le=500,
        description="number of steps in the inversion grid over all times; more where it does not divide their number",
    )
    inversion: Endpoint = Field(
        default="grid", description="where an inversion ends: grid, exact, or official (released code)"
    )

    @property
    def trained_on(self) -> tuple[str, ...]:
        return (self.reward,)

    def prepare(self, data: PreferenceData, context: PrepareContext) -> PreferenceData:
        """Replace votes by p = sigmoid of the difference of the rewards, min-max normalised over the whole dataset."""
        from scipy.special import expit

        scores = context.scores(self.reward, data)
        low, high = float(scores.min()), float(scores.max())
        if high <= low:
            raise UserError(
                f"metric {self.reward!r} gives the same score to every image of {data.report.source}; use another reward"
            )
        context.notes["reward_range"] = [low, high]
        normalised = (scores - low) / (high - low)
        return data.with_preference(np.asarray(expit(normalised[:, 0] - normalised[:, 1])))

    def noised(self, batch: PairBatch, policy: Policy) -> Noised:
        renoise: Renoise = "same" if self.inversion == "official" else "next"
        return invert_pair(batch, policy, InversionSettings(self.inversion_steps, self.inversion, renoise))

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return smpo_loss(errors, preference, beta=self.beta, gamma=self.gamma)
