"""Advantage-weighted matching: the denoising error of the policy's own samples, weighted by their advantages.

Xue et al. 2025, arXiv 2509.25050; released code scxue/advantage_weighted_matching at be513723.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Self

import pydantic
from pydantic import Field
from torch import Tensor

from algorithms.recipes import SD3_ONLINE, TINY_ONLINE
from bench import AlgorithmInfo, ForwardAlgorithm, Need, Policy, Recipe, RolloutBatch, StepOutput, sample_errors

AVERAGE = "average"
"""The snapshot that the policy is held close to."""
Weighting = Literal["uniform", "t", "t2", "huber", "ghuber"]
FLOOR = 1e-10


def _power(error: Tensor, power: float) -> Tensor:
    return (error + FLOOR) ** power - math.pow(FLOOR, power)


WEIGHTINGS: Mapping[Weighting, Callable[[Tensor, Tensor], Tensor]] = {
    "uniform": lambda error, _: error,
    "t": lambda error, t: t * error,
    "t2": lambda error, t: t**2 * error,
    "huber": lambda error, t: t * _power(error, 0.5),
    "ghuber": lambda error, t: t * _power(error, 0.25) / 0.25,
}
"""From mean squared errors, (B,), and noise levels, (B,), to minus the "log-likelihoods", (B,)."""


class AWM(ForwardAlgorithm):
    """The policy gradient with minus a weighted denoising error in the place of the log-likelihood."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="AWM",
        paper="Xue et al. 2025, arXiv 2509.25050",
        formula="-A / m * exp(w_old - w) + kl |f - g|^2 + average |f - f_avg|^2, w the weighted denoising error, w_old the same without "
        "gradient, m = advantage_clip",
        status="matches the released code's on-policy loss, whose ratio is 1; times are uniform and the samples by Euler's or DDIM's "
        "steps",
    )
    needs: ClassVar[frozenset[Need]] = ForwardAlgorithm.needs | {Need.REFERENCE}
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: ddpo's for the tiny world, at a lower learning rate",
            training={**TINY_ONLINE, "learning_rate": 3e-4},
        ),
        "sd3": Recipe(
            source="released pickscore_sd3_no_cfg_1node for SD3.5 Medium at be513723; there samples by SA-Solver, trained on at 6 of the first 12 of its "
            "14 times, 512 pixels, adapters scaled by 2, and fp16; its training is stopped by "
            "hand, and 1,000 steps are ours",
            algorithm={"rewards": ("pickscore",), "group": 24, "sampling_steps": 14, "trained": 6, "advantage": "flow-grpo", "kl": 1e-4},
            training={**SD3_ONLINE, "steps": 1000, "global_batch_size": 576, "micro_batch_size": 6, "precision": "bf16", "ema_decay": 0.99},
        ),
    }  # fmt: skip

    weighting: Weighting = Field(default="ghuber", description="how the error is weighted by the noise level t")
    kl: float = Field(default=0.001, ge=0, description="weight of the distance from the reference")
    average: float = Field(
        default=1.0, ge=0, description="weight of the distance from an average of the policy's weights"
    )

    @pydantic.model_validator(mode="after")
    def _a_ratio_of_one(self) -> Self:
        if self.updates > 1:
            raise ValueError(
                f"updates={self.updates} would train on samples of earlier weights, for which the ratio of 1 is wrong; use updates=1"
            )
        return self

    def begin(self, policy: Policy) -> None:
        if self.average:
            policy.snapshot(AVERAGE)

    def end_step(self, step: int, policy: Policy) -> None:
        if self.average:
            policy.update_ema(AVERAGE, min(0.3, 0.001 * (step + 1)))

    @property
    def calls_reference(self) -> bool:
        return self.kl > 0

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:
        noised = batch.noised(policy.process)
        at = (noised.latents, noised.timesteps)
        new = batch.guide(policy.predict)(*at)
        error = sample_errors(new, noised.targets)
        t = policy.process.sigma(noised.timesteps, new).flatten()
        likelihood = -WEIGHTINGS[self.weighting](error, t)
        ratio = (likelihood - likelihood.detach()).exp()
        losses = -batch.advantages / self.advantage_clip * ratio
        if self.kl:
            losses = losses + self.kl * sample_errors(new, batch.guide(policy.reference)(*at))
        if self.average:
            average = batch.guide(functools.partial(policy.predict_with_snapshot, AVERAGE))(*at)
            losses = losses + self.average * sample_errors(new, average)
        return StepOutput(losses, noised.timesteps, {"error": error.detach()})
