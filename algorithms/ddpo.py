"""DDPO: denoising as a decision process, the reward at its end, and PPO's clipped importance ratio at every step.

Black et al. 2024 (ICLR 2024), arXiv 2305.13301; released code kvablack/ddpo-pytorch at 1958463f.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from algorithms.recipes import TINY_ONLINE
from bench import (
    AlgorithmInfo,
    Policy,
    Recipe,
    RolloutBatch,
    StepOutput,
    StepwiseAlgorithm,
    clipped_objective,
    ratio_logs,
)


class DDPO(StepwiseAlgorithm):
    """The importance-sampled estimator, DDPO-IS."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="DDPO",
        paper="Black et al. 2024, arXiv 2305.13301",
        formula="max(-A r, -A clip(r, 1-c, 1+c)), r = p(x_t-1 | x_t) / p_old(x_t-1 | x_t), log p a mean over elements, c = clip",
        status="matches the released code's loss; advantages by group, or with advantage=ddpo over the collection, instead of its running statistics "
        "per prompt",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: 6 prompts x 8 samples, noise eta 1, gradient on 3 of the first 5 steps, one update a collection, LoRA",
            algorithm={"clip": 1e-3},
            training=TINY_ONLINE,
        ),
        "sd15": Recipe(
            source="released dgx.py, aesthetic, at 1958463f; there each sample has a prompt of its own, from a list of animals, advantages use "
            "running statistics by prompt, and its precision is fp16, whose replay is noisier than the clip range",
            algorithm={"rewards": ("aesthetic",), "updates": 2, "sampling_steps": 50, "guidance_scale": 5.0, "trained": 50,
                       "within": 50, "rule": "ddim", "noise": 1.0, "advantage": "ddpo"},
            training={"steps": 400, "global_batch_size": 128, "micro_batch_size": 4, "learning_rate": 3e-4, "warmup_steps": 0,
                      "weight_decay": 1e-4, "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 4, "lora_init": "gaussian"},
        ),
    }  # fmt: skip

    clip: float = Field(default=1e-4, gt=0, lt=1, description="c, the half-width of the range of the importance ratio")

    @property
    def least_ratio(self) -> float:
        return self.clip

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:
        log_ratio = batch.replay(policy.predict).log_prob - batch.log_probs
        losses = clipped_objective(batch.advantages, log_ratio, self.clip)
        return StepOutput(losses, batch.timesteps, ratio_logs(log_ratio, self.clip, batch.clean[0].numel()))
