"""SePPO: the loser is sampled by an earlier version of the policy, and counts as a winner if that version did better on the real one.

Zhang et al. 2024, arXiv 2410.05255; training code was not released; the formula is reconstructed from reviews.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.dpo import Beta
from algorithms.recipes import SWEPT, TINY
from bench import (
    ODE,
    Algorithm,
    AlgorithmInfo,
    BetaScale,
    Need,
    PairBatch,
    PairErrors,
    Policy,
    Recipe,
    StepOutput,
    guided,
    noised_alike,
    pair_logs,
    roll_out,
    sample_errors,
    strided_grid,
    uniform,
)

SNAPSHOT = "snapshot"


def seppo_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """``-log sigmoid(-beta / 2 * (Dw - sign(Rw - Mw) * Dl))``, one loss per pair, (B,); a sign of 0 counts as 1.

    Args:
        errors: winners are the data's images, losers the reference's samples; the sign is the paper's anchor-based flipper.
        beta: KL strength; larger stays closer to the reference.
    """
    winner_gap, loser_gap = errors.winner_gap, errors.loser_gap
    sign = torch.where(winner_gap.detach() > 0, -1.0, 1.0)
    return -logsigmoid(-0.5 * beta * (winner_gap - sign * loser_gap))


class SePPO(Algorithm):
    """Winners from the data, losers from a random earlier version of the policy, which is also the reference."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="SePPO",
        paper="Zhang et al. 2024, arXiv 2410.05255",
        formula="-log sigmoid(-beta/2 * (Dw - sign(Rw - Mw) Dl)), the loser sampled by an earlier policy",
        status="reconstructed from reviews; beta and sampler are unknown",
        beta=BetaScale(0.5, of="margin"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.IMAGES, Need.GUIDANCE})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=f"{SWEPT}; a younger pool for a shorter training",
            algorithm={"beta": 50.0, "sampling_steps": 10, "guidance_scale": 3.0, "interval": 10, "pool": 4},
            training={**TINY, "steps": 50, "global_batch_size": 16, "learning_rate": 2e-4},
        )
    }
    initial_loss: ClassVar[float | None] = math.log(2)
    placebo: ClassVar[str | None] = (
        "the winner, which is compared with a sample, is chosen at random; unlabelled data has none"
    )

    beta: Beta = 2000.0
    pool: int = Field(default=7, gt=0, description="number of earlier versions to keep")
    interval: int = Field(default=30, gt=0, description="number of optimizer steps between two versions")
    sampling_steps: int = Field(default=20, ge=2, le=1000, description="number of DDIM steps per sample")
    guidance_scale: float = Field(default=7.5, ge=1, description="scale of classifier-free guidance when sampling")

    def begin(self, policy: Policy) -> None:
        policy.snapshot(f"{SNAPSHOT}-0")

    def end_step(self, step: int, policy: Policy) -> None:
        version, rest = divmod(step + 1, self.interval)
        if rest == 0:
            policy.snapshot(f"{SNAPSHOT}-{version % self.pool}")

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        draws = batch.draws
        versions = sorted(policy.snapshots)
        version = versions[int(uniform(draws.seed, "version", draws.step) * len(versions))]
        sampled = self._sample(version, batch, policy)
        pairs = dataclasses.replace(batch, loser=sampled, loser_condition=batch.condition)
        noised = noised_alike(policy.process, pairs)
        latents, targets, t = noised.both()
        condition = pairs.both_conditions
        policy_errors = sample_errors(policy.predict(latents, t, condition), targets).chunk(2)
        earlier = policy.predict_with_snapshot(version, latents, t, condition)
        errors = PairErrors(*policy_errors, *sample_errors(earlier, targets).chunk(2))
        return StepOutput(seppo_loss(errors, beta=self.beta), noised.timesteps, pair_logs(errors))

    @torch.no_grad()
    def _sample(self, version: str, batch: PairBatch, policy: Policy) -> Tensor:
        """Samples of an earlier version for the batch's captions, with guidance; same shape as the winners."""
        grid = strided_grid(policy.process, self.sampling_steps)
        predict = functools.partial(policy.predict_with_snapshot, version)
        denoise = guided(predict, batch.condition, batch.unconditional, self.guidance_scale)
        latents = batch.draws.normal_like("sample", batch.winner)
        level = torch.full((len(latents),), grid.steps, device=latents.device)
        return roll_out(denoise, grid, [ODE] * grid.steps, latents, level).final
