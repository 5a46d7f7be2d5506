"""DPOK: the advantage times a clamped importance ratio at every sampling step, with a distance from the reference.

Fan et al. 2023 (NeurIPS 2023), arXiv 2305.16381; released code google-research/google-research at 1d49f2c0d5 and, for its
sampler, 5afe15e987.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from algorithms.recipes import TINY_ONLINE
from bench import (
    AlgorithmInfo,
    Convention,
    Need,
    Policy,
    Recipe,
    RolloutBatch,
    StepOutput,
    StepwiseAlgorithm,
    kl_nats,
    ratio_logs,
    sample_errors,
)


class DPOK(StepwiseAlgorithm):
    """A clamp without PPO's minimum: outside its band a ratio has no gradient, whatever the sign of the advantage."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="DPOK",
        paper="Fan et al. 2023, arXiv 2305.16381",
        formula="-scale A clip(r, 1-c, 1+c) + kl |f - g|^2, r = p(x_t-1 | x_t) / p_old(x_t-1 | x_t), A = R - V, c = clip",
        status="matches the released code's loss; V is the mean of the prompt's rewards instead of a network of the noisy sample, "
        "and a collection takes the place of its replay buffer",
    )
    needs: ClassVar[frozenset[Need]] = StepwiseAlgorithm.needs | {Need.REFERENCE}
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            name="untried",
            source="ours: ddpo's for the tiny world; scale and kl as published; no whole run has been looked at",
            algorithm={"clip": 1e-3},
            training=TINY_ONLINE,
        ),
        "sd15": Recipe(
            source="released train_online_pg.py at 1d49f2c0d5; there the value is a network, each step of the policy draws 24 sampling steps from "
            "the last 1000, and the precision is fp16, whose replay is noisier than the clip range",
            algorithm={"rewards": ("imagereward",), "group": 6, "updates": 5, "sampling_steps": 50, "guidance_scale": 7.5,
                       "trained": 50, "within": 50, "rule": "ddim", "noise": 1.0},
            training={"steps": 10000, "global_batch_size": 6, "micro_batch_size": 2, "learning_rate": 1e-5, "warmup_steps": 0,
                      "weight_decay": 0.0, "max_grad_norm": 0.1, "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 4,
                      "lora_init": "gaussian", "gradient_checkpointing": True},
        ),
    }  # fmt: skip

    advantage: Convention = Field(default="gardo", description="how rewards become advantages; gardo is R - V")
    # R - V is in the reward's own unit, so that no limit fits all rewards; the released code has none.
    advantage_clip: float = Field(
        default=1e6, gt=0, description="advantages are clipped to +- this; by default not at all, in effect"
    )
    clip: float = Field(default=1e-4, gt=0, lt=1, description="c, the half-width of the range of the importance ratio")
    scale: float = Field(default=100.0, gt=0, description="weight of the reward's loss")
    kl: float = Field(default=0.01, ge=0, description="weight of the distance from the reference's guided prediction")

    @property
    def least_ratio(self) -> float:
        return self.clip

    @property
    def calls_reference(self) -> bool:
        return self.kl > 0

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:
        taken = batch.replay(policy.predict)
        log_ratio = taken.log_prob - batch.log_probs
        losses = self.objective(batch.advantages, log_ratio)
        logs = ratio_logs(log_ratio, self.clip, batch.clean[0].numel())
        if self.kl:
            reference = batch.replay(policy.reference)
            distance = sample_errors(taken.prediction, reference.prediction)
            losses, logs["distance"] = losses + self.kl * distance, distance.detach()
            logs["kl_nats"] = kl_nats(taken.transition, reference.transition)
        return StepOutput(losses, batch.timesteps, logs)

    def objective(self, advantages: Tensor, log_ratio: Tensor) -> Tensor:
        """The loss of each sample without the distance from the reference, (B,), as are both arguments."""
        return -self.scale * advantages * log_ratio.exp().clamp(1 - self.clip, 1 + self.clip)
