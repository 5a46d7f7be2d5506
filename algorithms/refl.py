"""ReFL: the gradient of the reward through one late sampling step, with a denoising loss on images that holds the model.

Xu et al. 2023 (NeurIPS 2023), arXiv 2304.05977; released code THUDM/ImageReward at 1beb4e4d, which lacks the paper's
denoising loss on other images, the "pre-training loss", and gives its network the number of the step instead of its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import pydantic
import torch
from pydantic import Field
from torch import Tensor

from algorithms.recipes import TINY_GRADIENT
from bench import (
    AlgorithmInfo,
    GradientBatch,
    MetricNames,
    Need,
    PairBatch,
    Policy,
    Recipe,
    RewardGradientAlgorithm,
    StepOutput,
    UserError,
    noised_images,
    sample_errors,
    uniform,
)


class ReFL(RewardGradientAlgorithm):
    """Every optimizer step stops sampling at a random late step, and judges the image that the network sees there."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="ReFL",
        paper="Xu et al. 2023, arXiv 2304.05977",
        formula="scale max(0, ceiling - r(x0(x_m))) + pretraining |f - target|^2, x0(x_m) predicted after m sampling steps, m uniform in "
        "first ... sampling_steps - 1",
        status="matches the paper; its loss on other images, which the released code lacks, is computed on the first image of each "
        "row of the data",
    )
    needs: ClassVar[frozenset[Need]] = RewardGradientAlgorithm.needs | {Need.IMAGES}
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours, not tuned: LoRA, the last three of ten steps, a ceiling above the tiny world's rewards, most of which are above 2, and a "
            "hundred times the published scale",
            algorithm={"sampling_steps": 10, "first": 7, "scale": 0.1, "ceiling": 10.0},
            training={**TINY_GRADIENT, "trainable": "lora", "lora_rank": 8, "learning_rate": 3e-4},
        ),
        "sd15": Recipe(
            source="released train_refl.sh at 1beb4e4d, with the paper's loss on other images; it samples with noise and in fp16",
            training={"steps": 100, "global_batch_size": 64, "micro_batch_size": 2, "learning_rate": 1e-5, "warmup_steps": 0,
                      "caption_dropout": 0.0, "gradient_checkpointing": True, "ema_decay": 0.9999},
        ),
    }  # fmt: skip

    rewards: MetricNames = Field(default=("imagereward",), min_length=1, description="metrics that judge the images")
    sampling_steps: int = Field(default=40, ge=1, le=1000, description="number of sampling steps")
    first: int = Field(default=30, ge=0, description="after how many steps sampling may stop at the earliest")
    scale: float = Field(default=1e-3, gt=0, description="weight of the reward's loss")
    ceiling: float = Field(
        default=2.0, ge=-1e6, description="rewards above it have no gradient; it is in the unit of the reward"
    )
    pretraining: float = Field(
        default=1.0, ge=0, description="weight of the denoising loss on the data's images; 0 is the released code"
    )

    @pydantic.model_validator(mode="after")
    def _steps_that_exist(self) -> Self:
        if self.first >= self.sampling_steps:
            raise ValueError(f"first={self.first} must be less than the {self.sampling_steps} sampling_steps")
        return self

    @property
    def reads_pictures(self) -> bool:
        return self.pretraining > 0

    def step(self, batch: GradientBatch, policy: Policy) -> StepOutput:
        with torch.no_grad():
            noisy = batch.sample(policy.predict, batch.start, self.stop(batch.draws.seed, batch.draws.step))
        reward = batch.reward(batch.predict_clean(policy.predict, noisy))
        logs = {"reward": reward.detach().float(), "followed": (reward < self.ceiling).float()}
        losses = self.objective(reward)
        if self.pretraining:
            errors = pretraining_errors(batch.pairs, policy)
            losses, logs = losses + self.pretraining * errors, {**logs, "error": errors.detach()}
        return StepOutput(losses, batch.timesteps(noisy), logs)

    def check_first_step(self, record: Mapping[str, Any]) -> None:
        if record["followed"] == 0:
            raise UserError(
                f"every reward of the first step is above ceiling={self.ceiling:g} (their mean is {record['reward']:.4g}), and rewards above it "
                "are not followed; set ceiling higher, in the unit of the reward"
            )

    def stop(self, seed: int, step: int) -> int:
        """After how many sampling steps an optimizer step judges; the same for its whole batch."""
        return self.first + int(uniform(seed, "stop", step) * (self.sampling_steps - self.first))

    def objective(self, reward: Tensor) -> Tensor:
        """The reward's part of each loss, (B,)."""
        return self.scale * (self.ceiling - reward).clamp(min=0)


def pretraining_errors(pairs: PairBatch, policy: Policy) -> Tensor:
    """Denoising errors of the first image of each row at random times, (B,)."""
    latents, targets, t = noised_images(policy.process, pairs.draws, pairs.candidates[:, 0])
    condition = {name: value[:, 0] for name, value in pairs.candidate_condition.items()}
    return sample_errors(policy.predict(latents, t, condition), targets)
