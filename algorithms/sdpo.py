"""Diffusion-SDPO: safeguards any pairwise objective by scaling the loser's gradient so that the winner does not get worse.

Fu et al. 2025, arXiv 2511.03317; released code AIDC-AI/Diffusion-SDPO at 84fb241.  That code computes one scale over the pairs
of a process's micro-batch; this port computes it per pair, so it does not depend on how a batch is split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from algorithms.recipes import SD15, SDXL, SWEPT, TINY
from algorithms.wrapping import PairwiseWrapper
from bench import (
    AlgorithmInfo,
    PairPredictions,
    Recipe,
    expand,
)


def safe_scale(predictions: PairPredictions, *, mu: float) -> Tensor:
    """How much of the loser's gradient keeps the winner's error from growing, to first order; between 0 and 1, (B,).

    With ``gA, gB`` the gradients of the winner's and the loser's error with respect to the predictions:
    ``clip((1 - mu) |gA|^2 / gA.gB, 0, 1)`` where ``gA.gB > 0``, else 1.

    Args:
        predictions: predictions of the policy and their targets, (B, ...) each; the reference's are not read.
        mu: share of the winner's improvement that is guaranteed to remain, between 0 and 1.
    """
    winner = (predictions.policy_winner - predictions.target_winner).detach().flatten(1).to(torch.float64)
    loser = (predictions.policy_loser - predictions.target_loser).detach().flatten(1).to(torch.float64)
    factor = (2 / winner.shape[1]) ** 2
    product = factor * (winner * loser).sum(1)
    scale = ((1 - mu) * factor * winner.square().sum(1) / (product + 1e-9)).clamp(0, 1)
    return torch.where(product > 0, scale, 1.0).to(predictions.policy_loser.dtype)


class SDPO(PairwiseWrapper):
    """Any pairwise objective with a scaled gradient of the loser."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Diffusion-SDPO",
        paper="Fu et al. 2025, arXiv 2511.03317",
        formula="L with the loser's gradient times clip((1-mu) |gA|^2 / gA.gB, 0, 1), gA and gB the gradients of winner and loser by the predictions",
        status="matches released code, with one scale per pair instead of one per micro-batch",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"objective": "dpo", "objective_fields": {"beta": 50.0}, "mu": 0.9},
            training={**TINY, "learning_rate": 2e-4},
        ),
        "sd15": Recipe(
            source="released launcher for DPO at 84fb241, 8 GPUs: 1e-8 x 2048 (scale_lr)",
            algorithm={"objective": "dpo", "objective_fields": {"beta": 5000.0}, "mu": 0.9},
            training={**SD15, "micro_batch_size": 8, "precision": "bf16"},
        ),
        "sdxl": Recipe(
            source="released SDXL launcher for DPO at 84fb241, 8 GPUs: 1e-9 x 2048 (scale_lr), warm-up 500",
            algorithm={"objective": "dpo", "objective_fields": {"beta": 5000.0}, "mu": 0.6},
            training={**SDXL, "learning_rate": 2.048e-6, "warmup_steps": 500},
        ),
    }  # fmt: skip

    mu: float = Field(
        default=0.9, ge=0, le=1, description="share of the winner's improvement that is guaranteed to remain"
    )

    def prediction_loss(self, predictions: PairPredictions, preference: Tensor) -> Tensor:
        scale = safe_scale(predictions, mu=self.mu)
        loser = predictions.policy_loser
        guarded = predictions._replace(policy_loser=loser.detach() + expand(scale, loser) * (loser - loser.detach()))
        return self.pairwise.prediction_loss(guarded, preference)
