"""DRaFT: the gradient of the reward, through the decoder and the last sampling steps.

Clark et al. 2024 (ICLR 2024), arXiv 2309.17400; no code of theirs is released.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import pydantic
import torch
from pydantic import Field

from algorithms.recipes import TINY_GRADIENT
from bench import AlgorithmInfo, GradientBatch, Policy, Recipe, RewardGradientAlgorithm, StepOutput


class DRaFT(RewardGradientAlgorithm):
    """DRaFT-K and DRaFT-LV; with ``last`` equal to ``sampling_steps``, DRaFT."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="DRaFT",
        paper="Clark et al. 2024, arXiv 2309.17400",
        formula="-r(x0) - sum over i of r(x0_i), x0 with gradient through the last K steps, x0_i denoised again from the last level, K = "
        "last, i = 1 ... extra",
        status="follows the paper, by DDIM's or Euler's steps without noise; no released code to compare with",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: DRaFT-1 with all weights; after half of these steps, ImageReward on 128 held-out prompts of the tiny world was 0.51 +- 0.07 "
            "higher, without guidance (one seed)",
            algorithm={"sampling_steps": 10},
            training={**TINY_GRADIENT, "learning_rate": 5e-5},
        ),
        "sd15": Recipe(
            name="summarised",
            source="from notes on the paper, DRaFT-LV: 50 DDIM steps, guidance 7.5, LoRA, two more gradients; the optimizer's settings are "
            "ours: no launcher is published",
            algorithm={"rewards": ("hpsv2",), "sampling_steps": 50, "guidance_scale": 7.5, "extra": 2},
            training={"steps": 1000, "global_batch_size": 4, "micro_batch_size": 1, "learning_rate": 2e-4, "warmup_steps": 0,
                      "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 8, "gradient_checkpointing": True},
        ),
    }  # fmt: skip

    last: int = Field(
        default=1, ge=1, description="K, how many of the sampling steps have a gradient; memory grows with it"
    )
    extra: int = Field(
        default=0,
        ge=0,
        description="gradients added to reduce variance, each from the sample noised again to the last level (DRaFT-LV); needs last=1",
    )

    @pydantic.model_validator(mode="after")
    def _steps_that_exist(self) -> Self:
        if self.last > self.sampling_steps:
            raise ValueError(f"last={self.last} is more than the {self.sampling_steps} sampling_steps")
        if self.extra and self.last != 1:
            raise ValueError(f"extra={self.extra} denoises the last step again, so it needs last=1")
        return self

    @property
    def judged(self) -> int:
        return 1 + self.extra

    def step(self, batch: GradientBatch, policy: Policy) -> StepOutput:
        with torch.no_grad():
            noisy = batch.sample(policy.predict, batch.start, self.sampling_steps - self.last)
        clean = batch.sample(policy.predict, noisy, self.last).latents
        rewards = [batch.reward(clean)]
        for number in range(self.extra):
            again = batch.sample(policy.predict, batch.noise_again(clean, f"again {number}"), 1)
            rewards.append(batch.reward(again.latents))
        return StepOutput(-torch.stack(rewards).sum(0), batch.timesteps(noisy), {"reward": rewards[0].detach().float()})
