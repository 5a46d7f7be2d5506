"""Diff-SNPO: one network learns a preference with the caption and its opposite without it, so guidance extrapolates between them.

ICLR 2026; neither the paper's text nor its code was accessible.  The formula is reconstructed from summaries; one of them prints
the loss without its minus sign, which we restored, since with ``mixture=1`` the conditional branch must be DPO.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.dpo import Beta
from algorithms.recipes import SDXL, SWEPT, TINY
from bench import (
    AlgorithmInfo,
    BetaScale,
    Need,
    PairBatch,
    PairErrors,
    PairwiseAlgorithm,
    Policy,
    Recipe,
    StepOutput,
    expand,
)


def snpo_loss(errors: PairErrors, *, beta: float, mixture: float, scale: float) -> Tensor:
    """``-log sigmoid(-beta/2 * (Dw - Dl_mix))``, one loss per pair, (B,), with a bounded ``Dl_mix``.

    ``Dl_mix = -log(mixture * exp(-scale * (Ml - Rl)) + 1 - mixture) / scale``, at most ``-log(1 - mixture) / scale``, which
    bounds the gain from making the loser worse.

    Args:
        errors: denoising errors, each (B,).
        beta: KL strength; larger stays closer to the reference, in DPO's convention; with ``mixture=1`` the loss is DPO's.
        mixture: the policy's share in the mixture of policy and reference that replaces the policy on the loser.
        scale: factor from a mean squared error to an energy; in the paper the number of times T and a weight.
    """
    winner_gap, loser_gap = errors.winner_gap, errors.loser_gap
    logs = [torch.full_like(loser_gap, math.log(share) if share else -math.inf) for share in (mixture, 1 - mixture)]
    mixed = -torch.logaddexp(logs[0] - scale * loser_gap, logs[1]) / scale
    return -logsigmoid(-0.5 * beta * (winner_gap - mixed))


class SNPO(PairwiseAlgorithm):
    """A bounded DPO on captioned pairs, and on swapped pairs with an empty prompt."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Diff-SNPO",
        paper="Diff-SNPO 2026 (ICLR)",
        formula="-log sigmoid(-beta/2 * (Dw - Dl_mix)), Dl_mix = -log(lambda exp(-s Dl) + 1 - lambda) / s; w and l exchanged for an empty prompt",
        status="reconstructed from summaries; the scale s and the share of empty prompts are ours",
        beta=BetaScale(0.5, of="margin"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.REFERENCE, Need.GUIDANCE})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 50.0, "mixture": 0.9},
            training={**TINY, "caption_dropout": 0.0, "learning_rate": 1e-4},
        ),
        "sd15": Recipe(
            name="summarised",
            source="as summarised: beta 2000, 2.048e-8, 3000 steps of 512; warm-up is not known. A rate of 2.048e-5 would be that of dpo: check it",
            algorithm={"beta": 2000.0, "mixture": 0.9},
            training={"steps": 3000, "global_batch_size": 512, "micro_batch_size": 4, "learning_rate": 2.048e-8, "warmup_steps": 0,
                      "caption_dropout": 0.0},
        ),
        "sdxl": Recipe(
            name="summarised",
            source="as summarised: beta 5000, 2.048e-8, 625 steps of 2048; the rest as dpo's, but for captions. As for sd15, check the rate",
            algorithm={"beta": 5000.0, "mixture": 0.9},
            training={**SDXL, "steps": 625, "learning_rate": 2.048e-8, "caption_dropout": 0.0},
        ),
    }  # fmt: skip
    training_defaults: ClassVar[Mapping[str, Any]] = {"caption_dropout": 0.0}
    initial_loss: ClassVar[float | None] = math.log(2)

    beta: Beta = 2000.0
    mixture: float = Field(default=0.9, gt=0, le=1, description="lambda, the policy's share in the loser's mixture")
    scale: float = Field(default=1000.0, gt=0, description="s, energy of a mean squared error of 1; T in the paper")
    empty_share: float = Field(
        default=0.1, ge=0, lt=1, description="share of pairs that get an empty prompt and have winner and loser swapped"
    )

    @property
    def empties_captions(self) -> bool:
        return self.empty_share > 0

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return snpo_loss(errors, beta=self.beta, mixture=self.mixture, scale=self.scale)

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        """As for every pairwise objective, on routed pairs; the logged accuracy and margin refer to the pair as it is trained."""
        return super().step(self.routed(batch), policy)

    def routed(self, batch: PairBatch) -> PairBatch:
        """The batch with a share of the pairs swapped and conditioned on an empty prompt."""
        empty = (batch.draws.uniform("empty prompt") < self.empty_share).to(batch.winner.device)
        exchanged = batch.flipped()
        empty_loser, empty_winner = exchanged.unconditional, batch.unconditional

        def route(usual: Tensor, other: Tensor) -> Tensor:
            return torch.where(expand(empty, usual), other, usual)

        return dataclasses.replace(
            batch,
            winner=route(batch.winner, exchanged.winner),
            loser=route(batch.loser, exchanged.loser),
            winner_index=route(batch.winner_index, exchanged.winner_index),
            loser_index=route(batch.loser_index, exchanged.loser_index),
            condition={name: route(value, empty_loser[name]) for name, value in batch.condition.items()},
            loser_condition={name: route(value, empty_winner[name]) for name, value in batch.loser_condition.items()},
        )
