"""DDPO: denoising as a decision process, the reward at its end, and PPO's clipped importance ratio at every step.

Black et al. 2024 (ICLR 2024), arXiv 2305.13301; released code kvablack/ddpo-pytorch.
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
        formula="max(-A r, -A clip(r, 1-c, 1+c)), r = p(x_t-1 | x_t) / p_old(x_t-1 | x_t), log p a mean over elements",
        status="matches the released code's loss; advantages by group instead of its running statistics per prompt",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: 6 prompts x 8 samples, noise eta 1, gradient on 3 of the first 5 steps, one update a collection, LoRA",
            algorithm={"clip": 1e-3},
            training=TINY_ONLINE,
        ),
    }

    clip: float = Field(default=1e-4, gt=0, lt=1, description="c, the half-width of the range of the importance ratio")

    @property
    def least_ratio(self) -> float:
        return self.clip

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:  # type: ignore[override]
        log_ratio = batch.replay(policy.predict).log_prob - batch.log_probs
        losses = clipped_objective(batch.advantages, log_ratio, self.clip)
        return StepOutput(losses, batch.timesteps, ratio_logs(log_ratio, self.clip))
