"""Algorithms that compare candidates for the next latents within sampling steps, judged by the pictures that the policy sees in them."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from bench.core.errors import UserError
from bench.models.forward_process import ForwardProcess, Transition
from bench.models.sampling import decode_images
from bench.rollouts.candidates import Choice, Comparison, roll_out_candidates
from bench.rollouts.grid import Grid, evaluation_grid
from bench.rollouts.rules import Rule, find_rule
from bench.rollouts.sampler import Denoise, Predict
from bench.training.algorithm import Algorithm, StepOutput
from bench.training.batches import Captioned, StepBatches
from bench.training.online import ChosenRule, SamplingAlgorithm, Strength
from bench.training.policy import Policy
from bench.training.prompting import Prompting
from bench.training.reward_gradients import GradientSource


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
        """What is logged about the choice, float32, (B,) each: ``reward``, the mean of the candidates, and ``gap``, best minus worst."""
        return self.comparison.choice.logs

    @property
    def compared(self) -> Tensor:
        """Which of the pairs are compared, bool, (B,); see `StepPairAlgorithm.compares`."""
        return self.logs["compared"] > 0

    @property
    def timesteps(self) -> Tensor:
        """Times at which the step started, for diagnostics, int64, (B,); see `Grid.training_times`."""
        return self.grid.training_times(self.comparison.level)

    def transition(self, predict: Predict) -> Transition:
        """The distribution of the next latents under a network, with the rollout's guidance."""
        return self.comparison.transition(self.guide(predict), self.grid)


class StepPairAlgorithm(SamplingAlgorithm):
    """A sampling algorithm that learns which of several candidates for the next latents is better, in some sampling steps.

    A candidate's reward is that of the picture that the policy sees in it.  `step` is called once per trained sampling step for
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

    @property
    def judged(self) -> int:
        return self.candidates * len(self.kept)

    @property
    def kept(self) -> Sequence[int]:
        """Numbers of the trained sampling steps, 0 for the first."""
        count = min(self.trained, self.sampling_steps)
        return [number * self.sampling_steps // count for number in range(count)]

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
        """Change the winners before they are compared and before sampling goes on; the default does not.

        Args:
            winner: the winners, (B, ...), without gradient.
            reward: from latents at their level to the reward of the picture that the policy sees in them, float32, (B,), with
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
        """One loss of each caption of a micro-batch in one sampling step, unreduced; log ``batch.logs`` among others."""


@dataclasses.dataclass(frozen=True, slots=True)
class StepPairSource(GradientSource):
    """Global batches of captions for algorithms that compare candidates; see `GradientSource` for what the fields are."""

    algorithm: StepPairAlgorithm

    def batches(self, step: int) -> StepPairBatches:  # type: ignore[override]
        """The captions of an optimizer step, which are sampled while they are iterated over."""
        self.policy.ledger.samples += self.pairs.settings.global_batch_size
        model, algorithm = self.policy.model, self.algorithm
        prompting = Prompting(model, self.pairs.encoded, algorithm.guidance_scale, self.pairs.accelerator.device)
        grid = evaluation_grid(model, algorithm.sampling_steps)
        return StepPairBatches(self, self.pairs.batches(step), prompting, grid, algorithm.rules(model.process))

    def scores(self, latents: Tensor, batch: Captioned, step: int) -> Tensor:
        """The weighted sum of the rewards of pictures without gradient, float64 on the CPU, (B,).

        The first picture of a run is scored twice more, to compare.
        """
        rewards, before = self.rewards, self.rewards.calls
        images, prompts = (
            decode_images(self.policy.model, latents),
            [self.pairs.data.captions[row] for row in batch.row_ids],
        )
        if step == 0 and self.pairs.accelerator.is_main_process:
            rewards.check_determinism(images[:1], prompts[:1])
        scores = rewards.score(images, prompts)
        self.policy.ledger.reward_calls += rewards.calls - before
        return rewards.weighted(scores, self.algorithm.weights)


@dataclasses.dataclass(frozen=True)
class StepPairBatches:
    """One process's share of one optimizer step; see `bench.training.batches.Batches`.

    Attributes:
        source: what is trained, and on what.
        pairs: what the data has of the same rows.
        prompting: makes denoisers for captions.
        grid: the levels of the sampler.
        rules: the rule of every sampling step.
    """

    source: StepPairSource
    pairs: StepBatches
    prompting: Prompting
    grid: Grid
    rules: Sequence[Rule]
    record: ClassVar[Mapping[str, float]] = {}

    @property
    def size(self) -> int:
        """Captions times trained steps."""
        return self.pairs.size * len(self.source.algorithm.kept)

    @property
    def rounds(self) -> int:
        """See `bench.training.batches.Batches`."""
        return self.pairs.rounds * len(self.source.algorithm.kept)

    def check(self, algorithm: Algorithm, record: Mapping[str, Any]) -> None:
        """Policy and reference are identical at the first step, in which a continuous reward must have told candidates apart.

        Raises:
            UserError: all candidates of the first global batch have the same reward, or no two of them are compared.
        """
        self.pairs.check(algorithm, record)
        if self.pairs.step != 0 or not self.source.rewards.continuous:
            return
        rewards = ", ".join(self.source.algorithm.rewards)
        if record["gap"] == 0:
            raise UserError(
                f"the reward ({rewards}) is the same for all candidates of the first step, so there is nothing to learn from it; "
                "choose another reward"
            )
        if record["compared"] == 0:
            raise UserError(
                f"the rewards ({rewards}) of the first step's candidates are too close to compare any of them (on average "
                f"{record['gap']:.2g} apart); set a lower threshold, or larger reward_weights"
            )

    def __iter__(self) -> Iterator[StepPairBatch]:
        kept = self.source.algorithm.kept
        for captioned in self.pairs.captioned():
            guide = self.prompting.guide([self.pairs.data.captions[row] for row in captioned.row_ids])
            for which, comparison in enumerate(self._sampled(captioned, guide)):
                positions = tuple(position * len(kept) + which for position in captioned.batch_positions)
                yield StepPairBatch(comparison, self.grid, guide, captioned.row_ids, positions)

    @torch.no_grad()
    def _sampled(self, captioned: Captioned, guide: Callable[[Predict], Denoise]) -> list[Comparison]:
        model, algorithm, draws = self.prompting.model, self.source.algorithm, captioned.draws
        start = draws.normal("rollout", model.latent_shape(model.resolution, model.resolution)).to(
            self.prompting.device
        )
        denoise = guide(self.source.policy.predict)
        return roll_out_candidates(
            denoise,
            self.grid,
            self.rules,
            start,
            lambda number, each: draws.normal_like(f"rollout {number} {each}", start),
            algorithm.kept,
            algorithm.candidates,
            functools.partial(self._choose, captioned, denoise),
        )

    def _choose(
        self, captioned: Captioned, denoise: Denoise, number: int, candidates: Sequence[Tensor], level: Tensor
    ) -> Choice:
        """Judge the candidates of one step by what the policy sees in them."""
        algorithm, step = self.source.algorithm, self.pairs.step

        def seen(latents: Tensor) -> Tensor:
            if not bool(level.any()):
                return latents
            return self.grid.process.to_x0(latents, denoise(latents, self.grid.at(level)), level)

        judged = torch.stack([self.source.scores(seen(each), captioned, step) for each in candidates], dim=1)
        scores = judged
        if self.pairs.settings.labels == "shuffled":
            keys = [captioned.draws.uniform(f"shuffled scores {number} {each}") for each in range(len(candidates))]
            scores = judged.gather(1, torch.stack(keys, dim=1).argsort(1))
        rows, stacked = torch.arange(len(scores)), torch.stack(list(candidates), dim=1)
        best, worst = scores.argmax(1), scores.argmin(1)
        picked = {"winner": best, "loser": worst, "random": self._random(captioned, number, len(candidates))}
        following, loser = stacked[rows, picked[algorithm.next_state]], stacked[rows, worst]
        drawn = stacked[rows, best]
        winner = algorithm.refine(
            drawn, lambda latents: self.source.reward(seen(latents), captioned, step), level.float() / self.grid.steps
        )
        if algorithm.next_state == "winner":
            following = winner
        gap = judged.amax(1) - judged.amin(1)
        logs = {
            "reward": judged.mean(1),
            "gap": gap,
            "compared": algorithm.compares(gap),
            "refined": (winner != drawn).flatten(1).any(1),
        }
        return Choice(winner, loser, following, {name: value.to(drawn) for name, value in logs.items()})

    @staticmethod
    def _random(captioned: Captioned, number: int, count: int) -> Tensor:
        return (captioned.draws.uniform(f"next state {number}") * count).long()
