"""Diffusion-RPO: every winner of a batch is contrasted with every loser, with a weight that grows with their similarity.

Gu et al. 2024, arXiv 2406.06382; no training code was released.  RPO is also the name of DPO with a likelihood term.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.dpo import Beta
from algorithms.recipes import SWEPT, TINY, like_dpo
from bench import (
    AlgorithmInfo,
    BetaScale,
    Need,
    NoisedPairAlgorithm,
    PairBatch,
    Policy,
    PreferenceData,
    PrepareContext,
    Recipe,
    StepOutput,
    pair_logs,
)

COLUMN = "features"


def contrast_weights(distances: Tensor, *, temperature: float) -> Tensor:
    """``softmax over j of -distance(i, j) / temperature``: (N, N) to (N, N), rows sum to 1."""
    return torch.softmax(-distances / temperature, dim=1)


def contrasts(
    winner_gaps: Tensor, loser_gaps: Tensor, weights: Tensor, *, beta: float, placement: str, count: int
) -> Tensor:
    """The loss terms for winner i against loser j, (I, J); the loss is their sum over all j and mean over all i.

    ``outside``: ``-W log sigmoid(M)``; ``inside``: ``-log sigmoid(W M) / count``; ``M = -beta / 2 * (Dw_i - Dl_j)``.

    Args:
        winner_gaps: Dw, policy error minus reference error of the winners, (I,).
        loser_gaps: Dl, the same for the losers, (J,).
        weights: W, (I, J).
        beta: KL strength; larger stays closer to the reference.
        placement: ``outside`` or ``inside``.
        count: number of pairs in the global batch.
    """
    logits = -0.5 * beta * (winner_gaps[:, None] - loser_gaps[None, :])
    if placement == "outside":
        return -weights * logsigmoid(logits)
    return -logsigmoid(weights * logits) / count


class RPO(NoisedPairAlgorithm):
    """Winners and losers of different captions are also compared; the coupling spans the global batch."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Diffusion-RPO",
        paper="Gu et al. 2024, arXiv 2406.06382",
        formula="-sum_j W_ij log sigmoid(-beta/2 * (Dw_i - Dl_j)), W = softmax_j(-distance/tau)",
        status="reconstructed: temperature and the position of W are unknown, and every pair has its own time",
        beta=BetaScale(0.5, of="margin"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.REFERENCE})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=f"{SWEPT}; tau is a guess",
            algorithm={"beta": 50.0, "temperature": 0.05},
            training={**TINY, "learning_rate": 1e-4},
        ),
        **like_dpo(beta=5000.0, temperature=0.05),
    }

    beta: Beta = 2000.0
    temperature: float = Field(
        default=0.5, gt=0, description="tau of the similarity weights; small compares like with like"
    )
    placement: Literal["outside", "inside"] = Field(
        default="outside", description="position of the weight: outside or inside the log"
    )
    features: str = Field(default="pickscore", description="CLIP scorer whose embeddings measure similarity")

    @property
    def embedded_by(self) -> tuple[str, ...]:
        return (self.features,)

    def prepare(self, data: PreferenceData, context: PrepareContext) -> PreferenceData:
        """Add the embeddings of caption and images to each pair."""
        return data.with_columns(**{COLUMN: context.features(self.features, data)})

    def global_batch_stats(self, batch: PairBatch, policy: Policy) -> Tensor:
        """Gaps of winner and loser, then the joint embedding of caption and winner, (B, 2 + 2 D)."""
        errors = self.predict(self.noised(batch, policy), batch, policy).errors()
        return torch.cat([torch.stack([errors.winner_gap, errors.loser_gap], dim=1), joint_embedding(batch)], dim=1)

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        """Values are the winners' terms; gradients also include the losers' part in the terms of all other winners."""
        noised = self.noised(batch, policy)
        errors = self.predict(noised, batch, policy).errors()
        stats = batch.stats()
        all_winners, all_losers, embeddings = stats[:, 0], stats[:, 1], stats[:, 2:]
        weights = contrast_weights(1 - embeddings @ embeddings.T, temperature=self.temperature)
        rows = list(batch.batch_positions)

        def terms(winner: Tensor, loser: Tensor, weight: Tensor) -> Tensor:
            return contrasts(winner, loser, weight, beta=self.beta, placement=self.placement, count=len(all_losers))

        as_winner = terms(errors.winner_gap, all_losers, weights[rows]).sum(1)
        as_loser = terms(all_winners, errors.loser_gap, weights[:, rows]).sum(0)
        return StepOutput(as_winner + as_loser - as_loser.detach(), noised.timesteps, pair_logs(errors))


def joint_embedding(batch: PairBatch) -> Tensor:
    """Joint embedding of each pair's caption and winner, unit norm, (B, 2 D)."""
    features = batch.columns[COLUMN]
    rows = torch.arange(len(features), device=features.device)
    return torch.cat([features[:, 0], features[rows, 1 + batch.winner_index]], dim=1) / math.sqrt(2)
