"""ORPO: supervised fine-tuning on winners with an odds-ratio penalty on losers, in one stage and without a reference.

Hong et al. 2024, arXiv 2403.07691.  Published for language models; this port takes ``exp(-error)`` as the likelihood.  The diffusers script
of that name (huggingface/diffusers, examples/research_projects/diffusion_orpo at e29f16cfaa) compares likelihoods, not odds, and has the sign of the
comparison wrong: it raises the winner's error.  ``compare="likelihoods"`` is that script with the right sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from algorithms.recipes import SWEPT, TINY
from bench import AlgorithmInfo, PolicyErrors, Recipe, ReferenceFreeAlgorithm

Compared = Literal["odds", "likelihoods"]
SMALLEST = 1e-6
"""Smaller errors are clamped to this in `log_odds`, whose slope -1/error is unbounded; denoising errors are never that small."""


def log_likelihood(error: Tensor) -> Tensor:
    """``log exp(-e)``; same shape."""
    return -error


def log_odds(error: Tensor) -> Tensor:
    """``log [p / (1 - p)]`` of ``p = exp(-e)``, for errors e >= 0; same shape."""
    error = error.clamp(min=SMALLEST)
    return -error - (-torch.expm1(-error)).log()


def orpo_loss(errors: PolicyErrors, *, beta: float, score: Callable[[Tensor], Tensor]) -> Tensor:
    """``Mw - beta * log sigmoid(score(Mw) - score(Ml))``, one loss per pair, (B,).

    Args:
        errors: denoising errors of the policy, each (B,).
        beta: weight of the comparison.
        score: decreasing function of an error, `log_odds` or `log_likelihood`.
    """
    return errors.winner - beta * functional.logsigmoid(score(errors.winner) - score(errors.loser))


SCORES: Mapping[Compared, Callable[[Tensor], Tensor]] = {"odds": log_odds, "likelihoods": log_likelihood}


class ORPO(ReferenceFreeAlgorithm):
    """The winner's error plus the odds of winner against loser."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="ORPO",
        paper="Hong et al. 2024, arXiv 2403.07691",
        formula="Mw - beta log sigmoid(lo(Mw) - lo(Ml)), lo(e) = -e - log(1 - exp(-e)); lo(e) = -e with compare=likelihoods",
        status="matches the paper's formula; we ported it to denoising errors; diffusers' script has the sign wrong",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=f"{SWEPT}; at errors of 0.05 both terms pull equally hard on an even pair",
            algorithm={"beta": 0.1, "compare": "odds"},
            training={**TINY, "learning_rate": 1e-4},
        ),
        "sdxl": Recipe(
            source="README of diffusers' ORPO script at e29f16cfaa (later commits dropped the command): LoRA, batch 8 x 2, true sizes, 8-bit AdamW and fp16; here AdamW (see optimizer=adamw-8bit), bf16 and the right sign",
            algorithm={"beta": 0.1, "compare": "likelihoods"},
            training={"steps": 2000, "global_batch_size": 16, "micro_batch_size": 2, "learning_rate": 1e-5, "warmup_steps": 0,
                      "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 8, "lora_init": "gaussian", "horizontal_flip": "pair",
                      "precision": "bf16", "gradient_checkpointing": True},
        ),
    }  # fmt: skip

    beta: float = Field(default=0.1, gt=0, description="weight of the comparison")
    compare: Compared = Field(
        default="odds",
        description="what is compared: odds (the paper) or likelihoods (diffusers' script, sign fixed)",
    )

    def loss(self, errors: PolicyErrors, preference: Tensor) -> Tensor:
        return orpo_loss(errors, beta=self.beta, score=SCORES[self.compare])
