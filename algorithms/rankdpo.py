"""RankDPO: DPO on all pairs of a caption's ranked images, weighted by how much swapping a pair would change the ranking.

Karthik et al. 2024, arXiv 2410.18013; no training code was released.  The paper's beta has no factor 1/2: its b is beta = 2 b in this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.candidates import CandidateAlgorithm
from algorithms.dpo import Beta
from algorithms.recipes import SWEPT, TINY
from bench import (
    AlgorithmInfo,
    BetaScale,
    Need,
    PairBatch,
    Policy,
    PreferenceData,
    PrepareContext,
    Recipe,
    StepOutput,
    random_timesteps,
    sample_errors,
    win_shares,
)

SCORE = "win_share"


def rankdpo_loss(gaps: Tensor, shares: Tensor, *, beta: float) -> Tensor:
    """``-sum over psi_i > psi_j of D_ij log sigmoid(-beta / 2 * (s_i - s_j))``, one loss per list, (B,).

    ``D_ij = |G_i - G_j| |1 / log(1 + rank_i) - 1 / log(1 + rank_j)|`` with ``G = 2^psi - 1``, as in LambdaRank; ranks order
    psi from best to worst, ties in the order of the list.

    Args:
        gaps: s, policy error minus reference error, (B, K).
        shares: psi, how often an image won, between 0 and 1, (B, K).
        beta: KL strength; larger stays closer to the reference.
    """
    ranks = 1 + shares.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    gain, discount = 2**shares - 1, 1 / torch.log1p(ranks.to(gaps.dtype))
    weights = (_differences(gain) * _differences(discount)).abs()
    terms = -weights * logsigmoid(-0.5 * beta * _differences(gaps))
    return torch.where(_differences(shares) > 0, terms, 0.0).sum((1, 2))


class RankDPO(CandidateAlgorithm):
    """Lists of candidates from the base model, ranked by reward models; all images of a list share time and noise."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="RankDPO",
        paper="Karthik et al. 2024, arXiv 2410.18013",
        formula="-sum_ij |G_i - G_j| |1/D_i - 1/D_j| log sigmoid(-beta/2 * (s_i - s_j)), s = M - R of an image, G = 2^psi - 1 for the share psi of comparisons that it wins, D = log(1 + its rank)",
        status="reconstructed from the paper's formula with LambdaRank's discount; published beta, learning rate and batch size are unknown",
        beta=BetaScale(0.5, of="margin"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.IMAGES, Need.REFERENCE, Need.REWARD})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 100.0, "rewards": ("pickscore", "imagereward"), "candidates": 4, "captions": 400},
            training={**TINY, "steps": 50, "learning_rate": 2e-4},
        )
    }

    beta: Beta = 4000.0

    def prepare(self, data: PreferenceData, context: PrepareContext) -> PreferenceData:
        """Rank each caption's images; of data with fewer than three images per caption only the captions are used."""
        data, rewards = self.judged(data, context)
        shares = np.stack([win_shares(rewards[:, row]) for row in range(len(data))])
        context.notes["candidates"] = {"captions": len(data), "images": data.width, "digest": data.digest}
        return data.with_scores(**{SCORE: shares})

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        count = batch.candidates.shape[1]
        process, clean = policy.process, batch.candidates.flatten(0, 1)
        times = random_timesteps(process, batch.draws, batch.winner)
        noise = batch.draws.normal_like("noise", batch.winner).repeat_interleave(count, 0)
        t = times.repeat_interleave(count)
        condition = {name: value.flatten(0, 1) for name, value in batch.candidate_condition.items()}
        latents, target = process.add_noise(clean, noise, t), process.target(clean, noise, t)
        policy_errors = sample_errors(policy.predict(latents, t, condition), target)
        reference_errors = sample_errors(policy.reference(latents, t, condition), target)
        gaps = (policy_errors - reference_errors).reshape(-1, count)
        shares = batch.scores[SCORE]
        best, worst = shares.argmax(1, keepdim=True), shares.argmin(1, keepdim=True)
        margin = (gaps.gather(1, worst) - gaps.gather(1, best)).squeeze(1).detach()
        logs = {"margin": margin, "accuracy": (margin > 0).float()}
        return StepOutput(rankdpo_loss(gaps, shares, beta=self.beta), times, logs)


def _differences(values: Tensor) -> Tensor:
    """``values_i - values_j``; (B, K) to (B, K, K)."""
    return values[:, :, None] - values[:, None, :]
