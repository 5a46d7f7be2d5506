"""CaPO: regress the implicit reward difference onto calibrated rewards, on pairs from the Pareto fronts of several rewards.

Lee et al. 2025 (CVPR), arXiv 2502.02588; no code was released; beta, learning rate and batch size are unknown, and the formula is
that of the project page.  Its beta has no factor 1/2: its b is beta = 2 b in this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from algorithms.candidates import CandidateAlgorithm
from algorithms.recipes import SWEPT, TINY
from bench import (
    AlgorithmInfo,
    BetaScale,
    MetricNames,
    Need,
    Noised,
    NoisedPairAlgorithm,
    PairBatch,
    PairErrors,
    Policy,
    PreferenceData,
    PrepareContext,
    Recipe,
    StepOutput,
    UserError,
    calibrated_rewards,
    dominating_pairs,
    noised_forward,
    pair_logs,
    random_timesteps,
)

SCORE = "calibrated"


def capo_loss(errors: PairErrors, difference: Tensor, weights: Tensor, *, beta: float, placement: str) -> Tensor:
    """``(dR - beta / 2 * w * margin)^2`` (inner) or ``w (dR - beta / 2 * margin)^2`` (outer), one loss per pair, (B,).

    Args:
        errors: denoising errors, each (B,).
        difference: dR, calibrated reward of the winner minus that of the loser, (B,).
        weights: w, the weights of the times, (B,).
        beta: implicit reward per unit of error.
        placement: ``inner`` weights the errors, ``outer`` weights the squared residual.
    """
    implicit = 0.5 * beta * errors.margin
    if placement == "inner":
        return (difference - weights * implicit).square()
    return weights * (difference - implicit).square()


def time_weights(signal: Tensor, sigma: Tensor, *, bias: float) -> Tensor:
    """``sigmoid(b - lambda)`` with lambda the logarithm of the signal-to-noise ratio; same shape as the arguments."""
    return torch.sigmoid(bias - 2 * (signal.log() - sigma.log()))


class CaPO(CandidateAlgorithm, NoisedPairAlgorithm):
    """Candidates from the base model, with rewards calibrated by win rates against each other; independent noise for winner and loser."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="CaPO",
        paper="Lee et al. 2025, arXiv 2502.02588",
        formula="(dR - beta/2 * w_t * [(Ml - Rl) - (Mw - Rw)])^2, dR a difference of calibrated rewards",
        status="reconstructed from the project page and notes, as the paper's text was not readable; beta, learning rate and batch size are ours, and every kept pair is a row of the data",
        beta=BetaScale(0.5, of="margin"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.IMAGES, Need.REFERENCE, Need.REWARD})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 50.0, "rewards": ("pickscore", "imagereward"), "candidates": 4, "captions": 400},
            training={**TINY, "learning_rate": 1e-4},
        )
    }

    beta: float = Field(
        default=2000.0,
        gt=0,
        description="implicit reward per unit of error; loss uses beta/2 x mean squared errors (see docs/beta.md)",
    )
    rewards: MetricNames = Field(
        default=("pickscore", "imagereward"), min_length=2, description="metrics that score the candidates, as a,b"
    )
    candidates: int = Field(
        default=16, ge=2, description="images that the base model generates per caption, if the data has only pairs"
    )
    bias: float = Field(default=1.5, ge=-20, le=20, description="b of the time weight sigmoid(b - log SNR)")
    weighting: Literal["inner", "outer"] = Field(
        default="inner",
        description="what the time weight multiplies: the errors (inner) or the squared residuals (outer)",
    )

    def prepare(self, data: PreferenceData, context: PrepareContext) -> PreferenceData:
        """Pairs in which one image beats the other under every reward, with their mean calibrated rewards."""
        data, rewards = self.judged(data, context)
        calibrated = calibrated_rewards(rewards).mean(0)
        chosen = dominating_pairs(rewards)
        context.notes["pareto"] = {
            "captions": len(data), "images": data.width, "pairs": len(chosen), "digest": data.digest,
            "captions without a dominating pair": len(data) - len(set(chosen[:, 0].tolist())),
        }  # fmt: skip
        if not len(chosen):
            raise UserError(
                f"capo found no image in {data.report.source} that beats another image of the same caption under every reward; "
                "use more candidates or captions, or other rewards"
            )
        rows, winners, losers = chosen.T
        pairs = data.pick(rows, np.stack([winners, losers], axis=1))
        scores = np.stack([calibrated[rows, winners], calibrated[rows, losers]], axis=1)
        return pairs.with_preference(np.ones(len(rows))).with_scores(**{SCORE: scores})

    def noised(self, batch: PairBatch, policy: Policy) -> Noised:
        t = random_timesteps(policy.process, batch.draws, batch.winner)
        winner = batch.draws.normal_like("noise winner", batch.winner)
        loser = batch.draws.normal_like("noise loser", batch.loser)
        return noised_forward(policy.process, batch, winner, loser, t)

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        noised = self.noised(batch, policy)
        errors = self.predict(noised, batch, policy).errors()
        process, t = policy.process, noised.timesteps
        weights = time_weights(process.alpha(t, errors.margin), process.sigma(t, errors.margin), bias=self.bias)
        winner, loser = batch.scores[SCORE].unbind(1)
        losses = capo_loss(errors, winner - loser, weights, beta=self.beta, placement=self.weighting)
        return StepOutput(losses, t, pair_logs(errors))
