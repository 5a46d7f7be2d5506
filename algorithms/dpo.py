"""Diffusion-DPO: direct preference optimisation on denoising errors.

Wallace et al. 2023, arXiv 2311.12908, eq. 14; released code SalesforceAIResearch/DiffusionDPO at 5233e759.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bench import AlgorithmInfo, PairErrors, PairwiseAlgorithm, Recipe


def dpo_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """``-log sigmoid(beta / 2 * margin)``, one loss a pair, (B,).

    The convention is the released code's: errors are means over the latents' elements, the factor is ``beta / 2``, T and the
    SNR weight are absorbed in ``beta``.  With the papers' sums over d elements, ``beta_sum = beta / (2 d)``.

    Args:
        errors: denoising errors, each (B,).
        beta: strength of the pull towards the reference; larger stays closer.
    """
    return -functional.logsigmoid(0.5 * beta * errors.margin)


class DPO(PairwiseAlgorithm):
    """Diffusion-DPO: forward noise, one noise and one time for both images of a pair (as the released code does)."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Diffusion-DPO",
        paper="Wallace et al. 2023, arXiv 2311.12908",
        formula="-log sigmoid(beta/2 * [(Ml - Rl) - (Mw - Rw)])",
        status="matches released code",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: beta as published, learning rate lowered until the margin grew on training prompts of the tiny world",
            algorithm={"beta": 2000.0},
            training={"steps": 100, "global_batch_size": 32, "learning_rate": 1e-5, "warmup_steps": 10},
        ),
        "sd15": Recipe(
            source="released launcher at 5233e759: 1e-8 x 2048 (scale_lr), warm-up 500",
            algorithm={"beta": 5000.0},
            training={"steps": 2000, "global_batch_size": 2048, "micro_batch_size": 4, "learning_rate": 2.048e-5, "warmup_steps": 500,
                      "caption_dropout": 0.2},
        ),
        "sdxl": Recipe(
            source="released SDXL launcher at 5233e759: 1e-8 x 2048 (scale_lr), warm-up 200; with bf16 here, fp16 there",
            algorithm={"beta": 5000.0},
            training={"steps": 2000, "global_batch_size": 2048, "micro_batch_size": 1, "learning_rate": 2.048e-5, "warmup_steps": 200,
                      "caption_dropout": 0.2, "precision": "bf16", "gradient_checkpointing": True,
                      "size_conditioning": "nominal", "optimizer": "adafactor"},
        ),
    }  # fmt: skip
    initial_loss: ClassVar[float | None] = math.log(2)

    beta: float = Field(
        default=2000.0, gt=0, description="strength of the pull towards the reference (mean errors, factor 1/2)"
    )

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return dpo_loss(errors, beta=self.beta)
