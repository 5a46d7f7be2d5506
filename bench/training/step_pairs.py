"""Algorithms that compare candidates for the next latents within sampling steps, judged by the images that the policy sees in them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, Self

import pydantic
import torch
from pydantic import Field
from torch import Tensor

from bench.models.forward_process import ForwardProcess, Transition
from bench.rollouts.candidates import Comparison
from bench.rollouts.grid import Grid
from bench.rollouts.rules import Rule, find_rule
from bench.rollouts.sampler import Denoise, Predict
from bench.training.algorithm import StepOutput
from bench.training.online import ChosenRule, SamplingAlgorithm, Strength, refuse_more_steps
from bench.training.policy import Policy


@dataclasses.dataclass(frozen=True, slots=True)
class StepPairBatch:
    """One compared step of B captions of a micro-batch.

    Attributes:
        comparison: the step and its two candidates.
        grid: the levels of the sampler.
        guide: makes the denoiser of a network, for the captions and under the algorithm's guidance.
        row_ids: row numbers of the captions in the data, B of them.
        batch_positions: positions of these losses in the step's global batch, B of them.
        global_batch_stats: see `bench.PairBatch`.
    """

    comparison: Comparison
    grid: Grid
    guide: Callable[[Predict], Denoise]
    row_ids: tuple[int, ...]
    batch_positions: tuple[int, ...]
    global_batch_stats: Tensor | None = None

    @property
    def winner(self) -> Tensor:
        """The preferred next latents, (B, ...)."""
        return self.comparison.choice.winner

    @property
    def loser(self) -> Tensor:
        """The other ones, (B, ...)."""
        return self.comparison.choice.loser

    @property
    def logs(self) -> Mapping[str, Tensor]:
        """What is logged about the choice, float32, (B,) each.

        ``reward`` is the mean of the candidates, ``gap`` the best minus the worst, ``compared`` is 1 where the pair is compared, and ``refined``
        is 1 where `StepPairAlgorithm.refine` changed the winner.
        """
        return self.comparison.choice.logs

    @property
    def compared(self) -> Tensor:
        """Which of the pairs are compared, bool, (B,); see `StepPairAlgorithm.compares`."""
        return self.logs["compared"] > 0

    @property
    def sampling_step(self) -> int:
        """Number of the step, 0 for the first."""
        return self.grid.steps - int(self.comparison.level[0])

    @property
    def timesteps(self) -> Tensor:
        """Times at which the step started, for diagnostics, int64, (B,); see `Grid.training_times`."""
        return self.grid.training_times(self.comparison.level)

    def transition(self, predict: Predict) -> Transition:
        """The distribution of the next latents under a network, with the rollout's guidance."""
        return self.comparison.transition(self.guide(predict), self.grid)


class StepPairAlgorithm(SamplingAlgorithm):
    """A sampling algorithm that learns which of several candidates for the next latents is better, in some sampling steps.

    A candidate's reward is that of the image that the policy sees in it.  `step` is called once per trained sampling step for
    every micro-batch of captions, and returns one loss per caption; the update is the mean over all.
    """

    placebo: ClassVar[str | None] = "the scores of each step's candidates are permuted"

    rule: ChosenRule = None
    noise: Strength = None
    trained: int = Field(
        default=5, ge=1, description="sampling steps that are trained, evenly spaced from the first on"
    )
    candidates: int = Field(
        default=2, ge=2, description="candidates per trained step; the best and the worst are compared"
    )
    next_state: Literal["winner", "random", "loser"] = Field(
        default="winner", description="with which candidate sampling goes on"
    )

    @pydantic.model_validator(mode="after")
    def _as_many_steps_as_are_trained(self) -> Self:
        refuse_more_steps(self.trained, len(self.eligible))
        return self

    @property
    def judged(self) -> int:
        return self.candidates * len(self.kept)

    @property
    def eligible(self) -> Sequence[int]:
        """Numbers of the sampling steps that may be trained, 0 for the first: by default all."""
        return range(self.sampling_steps)

    @property
    def kept(self) -> Sequence[int]:
        """Numbers of the trained sampling steps."""
        return [self.eligible[number * len(self.eligible) // self.trained] for number in range(self.trained)]

    def networks(self, policy: Policy) -> tuple[Predict, Predict]:
        """The network that samples and the one that it is compared with; by default the policy and its reference."""
        return policy.predict, policy.reference

    def rules(self, process: ForwardProcess) -> list[Rule]:
        """The rule of every sampling step.

        Raises:
            UserError: the rule is not defined for the process.
        """
        return [find_rule(self.rule, self.noise, process)] * self.sampling_steps

    def sampler(self, process: ForwardProcess) -> Sequence[Rule]:
        """Those of training, without its choice among candidates."""
        return self.rules(process)

    def noisy_rules(self, process: ForwardProcess) -> Mapping[int, Rule]:
        rules = self.rules(process)
        return {number: rules[number] for number in self.kept}

    def refine(self, winner: Tensor, reward: Callable[[Tensor], Tensor], remaining: Tensor) -> Tensor:
        """Change the winners before the loss sees them and before sampling goes on; the default does not.

        Args:
            winner: the winners, (B, ...), without gradient.
            reward: from latents at their level to the reward of the image that the policy sees in them, float32, (B,), with
                gradient where gradients are enabled.
            remaining: how much of sampling is left after the step, from 1 (all of it) to 0, float32, (B,).
        """
        return winner

    def compares(self, gap: Tensor) -> Tensor:
        """Which pairs are compared, bool, (B,); by default all.  The loss of the others must not depend on the policy.

        Args:
            gap: reward of the best candidate minus that of the worst, float64, (B,).
        """
        return torch.ones_like(gap, dtype=torch.bool)

    @abc.abstractmethod
    def step(self, batch: StepPairBatch, policy: Policy) -> StepOutput:
        """One loss of each caption of a micro-batch in one sampling step, unreduced; log ``batch.logs`` among others.

        What is trained must be the first of `networks`, which samples.
        """
