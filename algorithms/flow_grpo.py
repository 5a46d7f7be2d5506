"""Flow-GRPO: DDPO's clipped ratio on flows whose sampling is turned into an SDE, with a penalty towards the reference.

Liu et al. 2025, arXiv 2505.05470; released code yifan123/flow_grpo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from algorithms.recipes import TINY_ONLINE
from bench import (
    ODE,
    AlgorithmInfo,
    ForwardProcess,
    Need,
    Policy,
    Recipe,
    RolloutBatch,
    Rule,
    StepOutput,
    StepwiseAlgorithm,
    clipped_objective,
    ratio_logs,
)


def squared_mean_shift(shift: Tensor, deviation: Tensor) -> Tensor:
    """``shift^2 / (2 deviation^2)``, mean over all non-batch elements; ``shift`` is (B, ...), ``deviation`` and the result (B,)."""
    return shift.square().flatten(1).mean(1) / (2 * deviation.square())


class FlowGRPO(StepwiseAlgorithm):
    """Clipped ratio plus ``beta`` times a distance of the steps' means from the reference's."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Flow-GRPO",
        paper="Liu et al. 2025, arXiv 2505.05470",
        formula="max(-A r, -A clip(r, 1-c, 1+c)) + beta mean((mu - mu_ref)^2) / (2 g^2), std = g sqrt(-ds)",
        status="matches the released code's loss, whose KL leaves out |ds| and is a mean over elements; on models that predict "
        "noise or v, with DDIM steps and the fall of their noise level as |ds|, it is ours",
    )
    needs: ClassVar[frozenset[Need]] = StepwiseAlgorithm.needs | {Need.REFERENCE}

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: ddpo's for the tiny world, which predicts noise, hence DDIM steps; beta as published",
            algorithm={"clip": 1e-3},
            training=TINY_ONLINE,
        ),
    }

    clip: float = Field(default=1e-4, gt=0, lt=1, description="c, the half-width of the range of the importance ratio")
    beta: float = Field(default=0.04, ge=0, description="weight of the distance from the reference")
    noise_outside: bool = Field(
        default=True, description="noise in sampling steps that are not trained; false is Flow-GRPO-Fast"
    )

    @property
    def least_ratio(self) -> float:
        return self.clip

    def rules(self, process: ForwardProcess, kept: Sequence[int]) -> list[Rule]:
        rules = super().rules(process, kept)
        return rules if self.noise_outside else [rule if step in kept else ODE for step, rule in enumerate(rules)]

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:  # type: ignore[override]
        taken, reference = batch.replay(policy.predict), batch.replay(policy.reference)
        log_ratio = taken.log_prob - batch.log_probs
        shift, std = taken.transition.mean - reference.transition.mean, taken.transition.std
        distance = squared_mean_shift(shift, std / batch.step_lengths.sqrt())
        losses = clipped_objective(batch.advantages, log_ratio, self.clip) + self.beta * distance
        elements = shift[0].numel()
        nats = squared_mean_shift(shift, std) * elements
        logs = {**ratio_logs(log_ratio, self.clip, elements), "distance": distance.detach(), "kl_nats": nats.detach()}
        return StepOutput(losses, batch.timesteps, logs)
