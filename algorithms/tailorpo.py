"""TailorPO: DPO on two candidates for the next step from the same noisy sample; TailorPO-G moves the better one up the reward's gradient.

Ren et al. 2025 (ICLR 2025), arXiv 2502.01667; no code of theirs is released, and other settings are those of D3PO.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Self

import pydantic
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.d3po import clipped_log_ratio, refuse_without_density
from algorithms.recipes import TINY_GRADIENT
from bench import (
    AlgorithmInfo,
    Need,
    Policy,
    Recipe,
    StepOutput,
    StepPairAlgorithm,
    StepPairBatch,
    expand,
    kl_nats,
    outside_clip,
)

TINY_LORA = {**TINY_GRADIENT, "trainable": "lora", "lora_rank": 8, "learning_rate": 1e-3, "steps": 40}
"""For the algorithms that compare candidates on the tiny world; at 3e-4 tailorpo hardly moved in 40 steps."""
SUMMARISED = Recipe(
    name="summarised",
    source="from notes on the submitted paper: 10,000 samples in batches of 2; beta, clip, guidance, learning rate and weight decay are "
    "D3PO's, as it says, and so is the rank of the adapters, which it does not state",
    algorithm={"rewards": ("aesthetic",), "rule": "ddim", "noise": 1.0, "guidance_scale": 5.0},
    training={"steps": 5000, "global_batch_size": 2, "micro_batch_size": 2, "learning_rate": 3e-5, "warmup_steps": 0,
              "weight_decay": 1e-4, "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 4, "lora_init": "gaussian"},
)  # fmt: skip


class TailorPO(StepPairAlgorithm):
    """Both candidates come from the same noisy sample, so the gradient does not mix two trajectories, unlike D3PO's."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="TailorPO",
        paper="Ren et al. 2025, arXiv 2502.01667",
        formula="-log sigmoid(beta (log r_w - log r_l)), r = clip(p(x_t-1 | x_t) / p_ref(x_t-1 | x_t), 1-c, 1+c), w and l the candidates from one "
        "x_t whose predicted images have the higher and the lower reward, c = clip",
        status="follows the paper with D3PO's mean over elements and clip; the paper's own sum is log_prob=sum with clip=0; no "
        "released code to compare with",
    )
    needs: ClassVar[frozenset[Need]] = StepPairAlgorithm.needs | {Need.REFERENCE}
    initial_loss: ClassVar[float | None] = math.log(2)
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: LoRA, three of ten steps; beta and clip as published; ImageReward on the 64 tuning prompts was 0.24 +- 0.10 higher "
            "(one seed), the better of two learning rates",
            algorithm={"sampling_steps": 10, "trained": 3},
            training=TINY_LORA,
        ),
        "sd15": SUMMARISED,
    }

    sampling_steps: int = Field(default=20, ge=1, le=1000, description="number of sampling steps")
    beta: float = Field(default=0.1, gt=0, description="how sharply the ratios decide")
    clip: float = Field(
        default=0.1, ge=0, lt=1, description="c, the half-width of the range of the ratio to the reference; 0 for none"
    )
    log_prob: Literal["mean", "sum"] = Field(default="mean", description="how log-probabilities add up over elements")

    @pydantic.model_validator(mode="after")
    def _densities(self) -> Self:
        refuse_without_density(self.rule)
        return self

    def step(self, batch: StepPairBatch, policy: Policy) -> StepOutput:
        taken, reference = map(batch.transition, self.networks(policy))
        winner, loser = (
            (taken.log_prob(each) - reference.log_prob(each)) * batch.compared for each in (batch.winner, batch.loser)
        )
        elements = batch.winner[0].numel()
        losses = self.objective(winner, loser, elements)
        logs = {
            **batch.logs,
            "margin": (winner - loser).detach(),
            "kl_nats": kl_nats(taken, reference),
            "clipped": torch.stack([self.clipped(each, elements) for each in (winner, loser)]).mean(0),
        }
        return StepOutput(losses, batch.timesteps, logs)

    def clipped(self, log_ratio: Tensor, elements: int) -> Tensor:
        """1 where a ratio is outside the clip range and has no gradient, else 0; arguments as of `objective`, (B,)."""
        return (
            outside_clip(self.added_up(elements) * log_ratio, self.clip) if self.clip else torch.zeros_like(log_ratio)
        )

    def added_up(self, elements: int) -> int:
        """Over how many elements log-probabilities are summed; 1 where they are means."""
        return elements if self.log_prob == "sum" else 1

    def objective(self, winner: Tensor, loser: Tensor, elements: int) -> Tensor:
        """The loss of each sample, (B,).

        Args:
            winner: log ratios of the policy to the reference, means over elements, (B,).
            loser: the same of the other candidate, (B,).
            elements: of one sample's latents.
        """
        count = self.added_up(elements)
        ratios = [clipped_log_ratio(count * each, self.clip) if self.clip else count * each for each in (winner, loser)]
        return -logsigmoid(self.beta * (ratios[0] - ratios[1]))


class TailorPOG(TailorPO):
    """The winner is moved up the gradient of its reward, where that raises the reward."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="TailorPO-G",
        paper="Ren et al. 2025, arXiv 2502.01667",
        formula="TailorPO's with x_w - eta_t grad (r(x_w) + delta - r(x))^2 at x = x_w in the place of x_w, if its reward is higher; eta_t from 0.1 "
        "to 0.2 by a cosine, larger late",
        status="follows the paper; no released code to compare with",
    )
    needs: ClassVar[frozenset[Need]] = TailorPO.needs | {Need.REWARD_GRADIENT}
    placebo: ClassVar[str | None] = None
    no_placebo: ClassVar[str] = "it follows the gradient of its reward, which shuffled scores do not change"
    recipes: ClassVar[Mapping[str, Recipe]] = {
        **TailorPO.recipes,
        "tiny": dataclasses.replace(
            TailorPO.recipes["tiny"],
            name="untried",
            source="ours: tailorpo's for the tiny world; no whole run has been looked at",
        ),
    }

    delta: float = Field(default=0.5, gt=0, description="by how much the reward should rise, in its own unit")

    @property
    def judged(self) -> int:
        return (self.candidates + 2) * len(self.kept)

    @property
    def judged_once(self) -> int:
        return 4

    def refine(self, winner: Tensor, reward: Callable[[Tensor], Tensor], remaining: Tensor) -> Tensor:
        with torch.enable_grad():
            start = winner.detach().requires_grad_()
            before = reward(start)
            (gradient,) = torch.autograd.grad((before.detach() + self.delta - before).square().sum(), start)
        eta = 0.1 + 0.05 * (1 + (math.pi * remaining).cos())
        moved = winner - expand(eta, winner) * gradient
        return torch.where(expand(reward(moved) > before.detach(), winner), moved, winner)
