"""Conservative DPO (cDPO): DPO with smoothed labels, for votes of which a known share is wrong.

Mitchell 2023, a note without an arXiv number; compared with its unbiased variant (`algorithms.rdpo`) in Chowdhury et al. 2024,
arXiv 2403.00409.  Published for language models; this port takes Diffusion-DPO's log-ratio, minus denoising errors.
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


def cdpo_loss(errors: PairErrors, *, beta: float, label_smoothing: float) -> Tensor:
    """``-(1 - s) log sigmoid(z) - s log sigmoid(-z)`` with ``z = beta / 2 * margin``, one loss per pair, (B,).

    Minimal at ``z = log((1 - s) / s)``: a margin beyond that is pulled back.

    Args:
        errors: denoising errors, each (B,).
        beta: KL strength; larger stays closer to the reference.
        label_smoothing: s, the share of votes assumed to be wrong; 0 is DPO.
    """
    z = 0.5 * beta * errors.margin
    return -(1 - label_smoothing) * functional.logsigmoid(z) - label_smoothing * functional.logsigmoid(-z)


class ConservativeDPO(PairwiseAlgorithm):
    """DPO with smoothed labels."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="cDPO",
        paper="Mitchell 2023 (a note); Chowdhury et al. 2024, arXiv 2403.00409",
        formula="-(1-s) log sigmoid(z) - s log sigmoid(-z), z = beta/2 * [(Ml - Rl) - (Mw - Rw)], s = label_smoothing",
        status="matches the paper's formula; a language-model method that we ported to denoising errors",
        beta=BetaScale(0.5, of="margin"),
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 50.0, "label_smoothing": 0.1},
            training={**TINY, "learning_rate": 1e-4},
        ),
        **like_dpo(beta=5000.0, label_smoothing=0.1),
    }
    initial_loss: ClassVar[float | None] = math.log(2)

    beta: Beta = 2000.0
    label_smoothing: float = Field(default=0.1, ge=0, lt=0.5, description="share of votes assumed to be wrong")

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return cdpo_loss(errors, beta=self.beta, label_smoothing=self.label_smoothing)
