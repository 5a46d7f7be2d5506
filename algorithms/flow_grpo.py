"""Flow-GRPO: DDPO's clipped ratio on flows whose sampling is turned into an SDE, with a penalty towards the reference.

Liu et al. 2025, arXiv 2505.05470; released code yifan123/flow_grpo at ac4c86e8, and for Flow-GRPO-Fast its configuration at 31c71b9d and its
trainer at 74db6919.

The recipes for FLUX are of two methods that the options here express: DanceGRPO, XueZeyue/DanceGRPO at 15cc71d5, and MixGRPO,
Tencent-Hunyuan/MixGRPO at e5cdd6a4.  They have names, since FLUX has no recipe of Flow-GRPO's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import pydantic
import torch
from pydantic import Field
from torch import Tensor

from algorithms.recipes import SD3_ONLINE, TINY_ONLINE
from bench import (
    ODE,
    AlgorithmInfo,
    ForwardProcess,
    Need,
    Policy,
    Recipe,
    RolloutBatch,
    Rule,
    Step,
    StepOutput,
    StepwiseAlgorithm,
    clipped_objective,
    has_density,
    kl_nats,
    outside_clip,
    ratio_logs,
    sample_errors,
    squared_mean_shift,
    uniform,
)

FLUX_ONLINE: dict[str, Any] = {
    "micro_batch_size": 1, "learning_rate": 1e-5, "warmup_steps": 0, "weight_decay": 1e-4, "caption_dropout": 0.0, "trainable": "full",
    "gradient_checkpointing": True,
}  # fmt: skip
"""What the launchers of DanceGRPO and MixGRPO for FLUX share: MixGRPO's is a fork."""

Window = Literal["drawn", "contiguous", "sliding"]
Objective = Literal["clip", "guard", "guard-dt", "dppo"]
Distance = Literal["diffusion", "exact", "prediction", "behaviour"]


def centred_log_ratio(log_ratio: Tensor, divergence: Tensor, deviation: Tensor) -> Tensor:
    """GRPO-Guard's log ratio, ``(log r + D) sd``, (B,), whose mean is 0 under the old policy (arXiv 2510.22319).

    Args:
        log_ratio: (B,).
        divergence: D, of the old step from the new one, see `squared_mean_shift`, (B,).
        deviation: sd, the standard deviation of the step, (B,).
    """
    return (log_ratio + divergence) * deviation


def masked_objective(advantages: Tensor, log_ratio: Tensor, divergence: Tensor, most: float) -> Tensor:
    """Flow-DPPO's loss ``-A r``, (B,), 0 where D is at least ``most`` and the update would add to it (arXiv 2606.11025)."""
    away = torch.where(advantages > 0, log_ratio > 0, log_ratio < 0)
    return torch.where(away & (divergence >= most), 0.0, -advantages * log_ratio.exp())


class FlowGRPO(StepwiseAlgorithm):
    """Clipped ratio plus ``beta`` times a distance of the steps' means from the reference's, and published variants of both."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Flow-GRPO",
        paper="Liu et al. 2025, arXiv 2505.05470",
        formula="max(-A r, -A clip(r, 1-c, 1+c)) + beta mean((mu - mu_ref)^2) / (2 sigma^2), std = sigma sqrt(-ds), c = clip",
        status="matches the released code's loss without guidance, whose KL leaves out |ds| and is a mean over elements; under guidance the release "
        "gives the unconditional prediction no gradient, and it drops groups without spread, which count as 0 here; on models that "
        "predict noise or v, with DDIM steps and the fall of their noise level as |ds|, it is ours",
    )
    needs: ClassVar[frozenset[Need]] = StepwiseAlgorithm.needs | {Need.REFERENCE}

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: as ddpo's for the tiny world, with DDIM steps on tiny and flow-sde's on tiny-flow; beta as published",
            algorithm={"clip": 1e-3},
            training=TINY_ONLINE,
        ),
        "sd3": Recipe(
            source="released pickscore_sd3 for SD3.5 Medium at ac4c86e8; there 512 pixels, adapters scaled by 2, "
            "and fp16, whose replay is noisier than the clip range; its training is stopped by hand, and 5,000 steps are ours",
            algorithm={"rewards": ("pickscore",), "group": 24, "updates": 2, "sampling_steps": 10, "guidance_scale": 4.5, "trained": 9,
                       "within": 9, "rule": "flow-sde", "noise": 0.7, "advantage": "flow-grpo", "beta": 0.01},
            training={**SD3_ONLINE, "steps": 5000, "global_batch_size": 576, "micro_batch_size": 9, "ema_decay": 0.9, "ema_every": 8},
        ),
        "sd3/fast": Recipe(
            name="fast",
            source="released pickscore_sd3_fast_nocfg for SD3.5 Medium at 31c71b9d, Flow-GRPO-Fast without guidance; there every batch of samples "
            "draws a window of its own, and 512 pixels, adapters scaled by 2, and fp16; its "
            "training is stopped by hand, and 5,000 steps are ours",
            algorithm={"rewards": ("pickscore",), "group": 18, "updates": 2, "sampling_steps": 10, "trained": 3, "within": 5,
                       "rule": "cps", "noise": 0.8, "window": "contiguous", "noise_outside": False, "advantage": "flow-grpo", "clip": 1e-5,
                       "beta": 0.0},
            training={**SD3_ONLINE, "steps": 5000, "global_batch_size": 576, "micro_batch_size": 9, "ema_decay": 0.9, "ema_every": 8},
        ),
        "flux/dance": Recipe(
            name="dance",
            source="DanceGRPO's released finetune_flux_grpo.sh at 15cc71d5, for 16 GPUs; there every sample has trained steps of its own, the last "
            "step has no noise, 720 pixels, a shift of 3, and bf16, whose replay is noisier than the clip range",
            algorithm={"rewards": ("hpsv2",), "group": 12, "updates": 3, "sampling_steps": 16, "guidance_scale": 3.5, "trained": 9,
                       "within": 15, "rule": "dance-sde", "noise": 0.3, "same_start": True, "advantage": "dance", "beta": 0.0},
            training={**FLUX_ONLINE, "steps": 900, "global_batch_size": 64},
        ),
        "flux/mix": Recipe(
            name="mix",
            source="MixGRPO's released finetune_flux_grpo_MixGRPO.sh at e5cdd6a4, for 32 GPUs; there UnifiedReward is a fourth reward, 720 pixels, a "
            "shift of 3, bf16, whose replay is noisier than the clip range, and its 300 collections start again until it is stopped",
            algorithm={"rewards": ("hpsv2", "imagereward", "pickscore"), "group": 12, "updates": 4, "sampling_steps": 25,
                       "guidance_scale": 3.5, "trained": 4, "within": 23, "rule": "flow-sde", "noise": 0.7, "same_start": True,
                       "window": "sliding", "noise_outside": False, "advantage": "dance", "beta": 0.0},
            training={**FLUX_ONLINE, "steps": 1200, "global_batch_size": 96},
        ),
    }  # fmt: skip

    clip: float = Field(
        default=1e-4, gt=0, lt=1, description="c, the half-width of the range of the importance ratio; not read by dppo"
    )
    beta: float = Field(default=0.04, ge=0, description="weight of the distance from the reference")
    noise_outside: bool = Field(
        default=True, description="noise in sampling steps that are not trained; false is Flow-GRPO-Fast"
    )
    window: Window = Field(
        default="drawn",
        description="which of the first `within` steps are trained: drawn one by one, a contiguous window at a random place "
        "(Flow-GRPO-Fast), or one that slides from early to late and then starts again (MixGRPO)",
    )
    stride: int = Field(default=1, ge=1, description="by how many steps a sliding window moves")
    hold: int = Field(default=25, ge=1, description="for how many collections it stays")
    objective: Objective = Field(
        default="clip",
        description="clip: PPO's; guard: with a centred ratio (GRPO-Guard as in Flow-Factory), guard-dt: divided by |ds| (as in verl-omni); "
        "dppo: no clip, but a mask where the step has moved by more than `divergence` (Flow-DPPO)",
    )
    divergence: float = Field(default=1e-5, gt=0, description="of dppo, a mean over elements")
    distance: Distance = Field(
        default="diffusion",
        description="what beta multiplies: diffusion: |mu - mu_ref|^2 / (2 sigma^2), Flow-GRPO's; exact: the same with the step's variance, the "
        "Gaussian KL per element (Pref-GRPO); prediction: |f - f_ref|^2; behaviour: (log r)^2 / 2, from the weights that sampled (MixGRPO)",
    )

    @pydantic.model_validator(mode="after")
    def _a_ratio_of_densities(self) -> Self:
        if self.objective != "clip" and not has_density(self.rule):
            raise ValueError(
                f"objective={self.objective} needs densities, which rule={self.rule} does not have; use flow-sde"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        read_with = {
            "stride": (self.window == "sliding", "window=sliding"),
            "hold": (self.window == "sliding", "window=sliding"),
            "divergence": (self.objective == "dppo", "objective=dppo"),
            "distance": (self.beta > 0, "a beta above 0"),
        }
        # At the first update from a collection the policy is the one that sampled it.
        for field, late in (("distance", self.distance == "behaviour"), ("objective", self.objective == "dppo")):
            if late and self.updates == 1:
                raise ValueError(
                    f"{field}={getattr(self, field)} has no effect at the first step from a collection, so it needs updates above 1"
                )
        if not self.noise_outside and self.trained == self.sampling_steps:
            raise ValueError("noise_outside=False has no effect where every sampling step is trained; leave it out")
        if self.window != "drawn" and self.trained == len(self.eligible):
            raise ValueError(
                f"window={self.window} has no effect where trained={self.trained} of {len(self.eligible)} steps are trained; lower trained, "
                "or leave window out"
            )
        for field, (read, needed) in read_with.items():
            value = getattr(self, field)
            if not read and value != type(self).model_fields[field].default:
                raise ValueError(f"{field}={value} has no effect without {needed}; set that, or leave {field} out")
        return self

    @property
    def least_ratio(self) -> float | None:
        return None if self.objective == "dppo" else self.clip

    def ratio_scale(self, deviation: float) -> float:
        return deviation if self.objective in ("guard", "guard-dt") else 1.0

    @property
    def compares_means(self) -> bool:
        return self.objective != "clip"

    def kept(self, seed: int, collection: int) -> list[int]:
        if self.window == "drawn":
            return super().kept(seed, collection)
        size = self.trained
        last = len(self.eligible) - size
        if self.window == "contiguous":
            start = int(uniform(seed, "trained window", collection) * (last + 1))
        else:
            start = min(collection // self.hold % (math.ceil(last / self.stride) + 1) * self.stride, last)
        return [*range(start, start + size)]

    @property
    def calls_reference(self) -> bool:
        return self.beta > 0 and self.distance != "behaviour"

    def rules(self, process: ForwardProcess, kept: Sequence[int]) -> list[Rule]:
        rules = super().rules(process, kept)
        return rules if self.noise_outside else [rule if step in kept else ODE for step, rule in enumerate(rules)]

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:
        taken = batch.replay(policy.predict)
        std, elements = taken.transition.std, batch.clean[0].numel()
        log_ratio = taken.log_prob - batch.log_probs
        compared = self.compares_means
        moved = squared_mean_shift(taken.transition.mean - batch.means, std) if compared else torch.zeros_like(std)
        losses, clipped = self.policy_losses(batch.advantages, log_ratio, moved, std, batch.step_lengths)
        logs = {**ratio_logs(log_ratio, self.clip, elements), "clipped": clipped}
        if self.beta:
            reference = None if self.distance == "behaviour" else batch.replay(policy.reference)
            distance = self.distances(taken, reference, log_ratio, batch.step_lengths)
            losses, logs["distance"] = losses + self.beta * distance, distance.detach()
            if reference is not None:
                logs["kl_nats"] = kl_nats(taken.transition, reference.transition)
        return StepOutput(losses, batch.timesteps, logs)

    def policy_losses(
        self, advantages: Tensor, log_ratio: Tensor, moved: Tensor, deviation: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of each sample without the distance, and 1 where it is clipped or masked, else 0, (B,) each.

        Args:
            advantages: (B,).
            log_ratio: (B,).
            moved: divergence of the step from the sampled one, per element, see `squared_mean_shift`, (B,); not read by ``clip``.
            deviation: standard deviations of the steps, (B,).
            lengths: by how much their noise level falls, (B,).
        """
        if self.objective == "dppo":
            losses = masked_objective(advantages, log_ratio, moved, self.divergence)
            return losses, ((losses == 0) & (advantages != 0)).to(losses)
        if self.objective != "clip":
            log_ratio = centred_log_ratio(log_ratio, moved, deviation)
        losses = clipped_objective(advantages, log_ratio, self.clip)
        return losses / lengths if self.objective == "guard-dt" else losses, outside_clip(log_ratio, self.clip)

    def distances(self, taken: Step, reference: Step | None, log_ratio: Tensor, lengths: Tensor) -> Tensor:
        """What ``beta`` multiplies, (B,).

        Args:
            taken: the step under the policy.
            reference: the same under the reference; None if it is not needed.
            log_ratio: (B,).
            lengths: by how much the steps' noise level falls, (B,).
        """
        if reference is None:
            return log_ratio.square() / 2
        if self.distance == "prediction":
            return sample_errors(taken.prediction, reference.prediction)
        std = taken.transition.std if self.distance == "exact" else taken.transition.std / lengths.sqrt()
        return squared_mean_shift(taken.transition.mean - reference.transition.mean, std)
