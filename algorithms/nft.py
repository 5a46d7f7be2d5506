"""DiffusionNFT: re-noises the policy's samples and moves its prediction towards samples of high reward and away from those of low reward.

Zheng et al. 2025, arXiv 2509.16117; released code NVlabs/DiffusionNFT at 24af5554.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from algorithms.recipes import SD3_ONLINE, TINY_ONLINE
from bench import (
    AlgorithmInfo,
    Convention,
    ForwardAlgorithm,
    Need,
    Policy,
    Recipe,
    RolloutBatch,
    StepOutput,
    sample_errors,
)

OLD = "old"
"""The snapshot that samples."""


def normalised_error(predicted: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error by the detached mean absolute error, at least 1e-5, over all non-batch elements, (B,)."""
    error = (predicted - clean).flatten(1)
    scale = error.detach().abs().mean(1).clamp(min=1e-5)
    return error.square().mean(1) / scale


class NFT(ForwardAlgorithm):
    """Negative-aware fine-tuning on the forward process."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="DiffusionNFT",
        paper="Zheng et al. 2025, arXiv 2509.16117",
        formula="m (r |x+ - x0|^2 / n+ + (1-r) |x- - x0|^2 / n-) / beta + kl |f - g|^2, r = clip(A / (2m) + 1/2, 0, 1), f+ = f_old + "
        "beta (f - f_old), f- = f_old - beta (f - f_old), m = advantage_clip, x+ and x- the clean images that f+ and f- predict, n+ and n- the mean of |x+ - x0| and |x- - x0|",
        status="matches the released code's loss; times are uniform, the samples by Euler's or DDIM's steps, and the old weights "
        "move once per collection",
    )
    needs: ClassVar[frozenset[Need]] = ForwardAlgorithm.needs | {Need.REFERENCE}
    sampled_by: ClassVar[str | None] = OLD
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: ddpo's for the tiny world, with one time per sample, which is cheaper; after half of these steps ImageReward on the 64 "
            "tuning prompts was 0.13 +- 0.08 higher (one seed)",
            algorithm={"advantage": "flow-grpo-group", "trained": 1},
            training=TINY_ONLINE,
        ),
        "sd3": Recipe(
            source="released sd3_pickscore for SD3.5 Medium at 24af5554; there samples by a DPM-Solver of order 2, trained on at 9 of its 10 times, 512 pixels, "
            "adapters scaled by 2, and fp16; its training is stopped by hand, and 1,000 steps "
            "are ours",
            algorithm={"rewards": ("pickscore",), "group": 24, "sampling_steps": 10, "trained": 9},
            training={**SD3_ONLINE, "steps": 1000, "global_batch_size": 1152, "micro_batch_size": 9, "precision": "bf16", "ema_decay": 0.9},
        ),
    }  # fmt: skip

    advantage: Convention = Field(default="flow-grpo", description="how rewards become advantages")
    beta: float = Field(default=1.0, gt=0, description="how far f+ and f- are from the old prediction")
    kl: float = Field(default=1e-4, ge=0, description="weight of the distance from the reference")
    decay: Literal["ramp", "late"] = Field(
        default="ramp",
        description="share of the old weights that stays, after n steps: min(n / 1000, 0.5), or late: 0 until n = 75, then "
        "min(0.0075 (n - 75), 0.999)",
    )

    def begin(self, policy: Policy) -> None:
        policy.snapshot(OLD)

    def end_step(self, step: int, policy: Policy) -> None:
        if (step + 1) % self.updates == 0:
            policy.update_ema(OLD, self.old_share(step + 1))

    def old_share(self, steps: int) -> float:
        """Share of the old weights that stays after so many optimizer steps."""
        return min(steps / 1000, 0.5) if self.decay == "ramp" else min(max(0.0075 * (steps - 75), 0), 0.999)

    @property
    def calls_reference(self) -> bool:
        return self.kl > 0

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:
        noised = batch.noised(policy.process)
        at = (noised.latents, noised.timesteps)
        new = batch.guide(policy.predict)(*at)
        old = batch.guide(functools.partial(policy.predict_with_snapshot, OLD))(*at)
        towards = self.beta * (new - old)
        good, bad = (
            normalised_error(policy.process.to_x0(noised.latents, each, noised.timesteps), batch.clean)
            for each in (old + towards, old - towards)
        )
        losses = self.objective(good, bad, batch.advantages)
        if self.kl:
            losses = losses + self.kl * sample_errors(new, batch.guide(policy.reference)(*at))
        return StepOutput(losses, noised.timesteps, {"good": good.detach(), "bad": bad.detach()})

    def objective(self, good: Tensor, bad: Tensor, advantages: Tensor) -> Tensor:
        """The loss of each sample without the distance from the reference, (B,).

        Args:
            good: normalised error of f+, (B,).
            bad: the same of f-, (B,).
            advantages: (B,).
        """
        most = self.advantage_clip
        share = (advantages / (2 * most) + 0.5).clamp(0, 1)
        return most * (share * good + (1 - share) * bad) / self.beta
