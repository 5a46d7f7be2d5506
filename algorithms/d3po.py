"""D3PO: DPO on every sampling step of two samples of a prompt, of which the reward prefers one.

Yang et al. 2024 (CVPR 2024), arXiv 2311.13231; released code yk7333/d3po at 40d31758.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import pydantic
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.recipes import TINY_ONLINE
from bench import (
    AlgorithmInfo,
    Need,
    Policy,
    Recipe,
    RolloutBatch,
    RuleName,
    StepOutput,
    StepwiseAlgorithm,
    combined_advantages,
    has_density,
    kl_nats,
    outside_clip,
    ratio_logs,
)


def clipped_log_ratio(log_ratio: Tensor, clip: float) -> Tensor:
    """Log ratios whose ratio is clipped to 1 +- ``clip``, in the same shape; outside they have no gradient."""
    return log_ratio.clamp(math.log1p(-clip), math.log1p(clip))


def refuse_without_density(rule: RuleName | None) -> None:
    """Raise a ValueError if a rule's log-probabilities are not those of densities, whose ratio to the reference is compared."""
    if not has_density(rule):
        raise ValueError(f"ratios to the reference need densities, which rule={rule} does not have; use flow-sde")


def preference_losses(log_ratio: Tensor, better: Tensor, *, beta: float) -> Tensor:
    """``-log sigmoid(beta s (l_i - l_j))``, mean over the other samples j of the prompt, (P, k); log 2 where s is 0.

    Args:
        log_ratio: l, log ratios of the policy to the reference, (P, k).
        better: scores, (P, k); s is the sign of how much the score of i exceeds that of j.
        beta: how sharply the ratios decide.
    """
    count = log_ratio.shape[1]
    gaps = beta * (better[:, :, None] - better[:, None]).sign() * (log_ratio[:, :, None] - log_ratio[:, None])
    others = ~torch.eye(count, dtype=torch.bool, device=gaps.device)
    return -(logsigmoid(gaps) * others).sum(2) / (count - 1)


class D3PO(StepwiseAlgorithm):
    """All pairs of a prompt's samples, which start from the same noise."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="D3PO",
        paper="Yang et al. 2024, arXiv 2311.13231",
        formula="-log sigmoid(beta s (log r_0 - log r_1)), r_i = clip(p(x_t-1 | x_t) / p_ref(x_t-1 | x_t), 1-c, 1+c) of sample i, s the sign "
        "of R_0 - R_1, log p a mean over elements, c = clip",
        status="matches the released code's loss; several rewards are weighted; there a sample is preferred only if none of its rewards is lower",
    )
    needs: ClassVar[frozenset[Need]] = StepwiseAlgorithm.needs | {Need.REFERENCE}
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            name="untried",
            source="ours: ddpo's for the tiny world, in pairs; beta and clip as published; no whole run has been looked at",
            training=TINY_ONLINE,
        ),
        "sd15": Recipe(
            source="released config/base.py at 40d31758 with what it says of the aesthetic reward; its precision is fp16",
            algorithm={"rewards": ("aesthetic",), "updates": 8, "sampling_steps": 20, "guidance_scale": 5.0, "trained": 20,
                       "within": 20, "rule": "ddim", "noise": 1.0},
            training={"steps": 8000, "global_batch_size": 2, "micro_batch_size": 2, "learning_rate": 3e-5, "warmup_steps": 0,
                      "weight_decay": 1e-4, "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 4, "lora_init": "gaussian",
                      "gradient_checkpointing": True},
        ),
    }  # fmt: skip

    group: int = Field(default=2, ge=2, description="samples per prompt; every two of them are compared")
    same_start: bool = Field(default=True, description="all samples of a prompt start from the same noise")
    beta: float = Field(default=0.1, gt=0, description="how sharply the ratios decide")
    clip: float = Field(
        default=0.1, gt=0, lt=1, description="c, the half-width of the range of the ratio to the reference"
    )

    @pydantic.model_validator(mode="after")
    def _densities(self) -> Self:
        refuse_without_density(self.rule)
        return self

    @pydantic.model_validator(mode="after")
    def _the_order_alone_counts(self) -> Self:
        for field in ("advantage", "advantage_clip", "combination"):
            if (value := getattr(self, field)) != type(self).model_fields[field].default:
                raise ValueError(
                    f"{field}={value} has no effect: D3PO uses only the order of the weighted rewards; leave it out"
                )
        return self

    @property
    def together(self) -> int:
        return self.group

    def advantages(self, rewards: Sequence[Tensor]) -> Tensor:
        """Minus the number of the prompt's samples with a higher weighted reward, (P, k); only the order counts, and ties stay ties."""
        total = combined_advantages(rewards, self.weights, "gardo", "rewards")
        return -(total[:, None] > total[:, :, None]).sum(2).double()

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:
        taken, reference = batch.replay(policy.predict), batch.replay(policy.reference)
        log_ratio = taken.log_prob - reference.log_prob
        groups = clipped_log_ratio(log_ratio, self.clip).reshape(-1, self.group)
        losses = preference_losses(groups, batch.advantages.reshape(-1, self.group), beta=self.beta)
        logs = {
            **ratio_logs(taken.log_prob - batch.log_probs, self.clip, batch.clean[0].numel()),
            "clipped": outside_clip(log_ratio, self.clip),
            "kl_nats": kl_nats(taken.transition, reference.transition),
        }
        return StepOutput(losses.flatten(), batch.timesteps, logs)
