"""Global batches of captions whose candidates for the next latents are compared; what is compared is in `bench.training.step_pairs`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.rollouts.candidates import Choice, Comparison, roll_out_candidates
from bench.rollouts.grid import Grid, evaluation_grid
from bench.rollouts.rules import Rule
from bench.rollouts.sampler import Denoise, Predict
from bench.training.algorithm import Algorithm
from bench.training.batches import Captioned, StepBatches
from bench.training.prompting import Prompting
from bench.training.reward_gradients import GradientSource
from bench.training.step_pairs import StepPairAlgorithm, StepPairBatch


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
        """The weighted sum of the rewards of images without gradient, float64 on the CPU, (B,).

        The first image of a run is scored twice more, to compare.
        """
        rewards, before = self.rewards, self.rewards.calls
        prompts = [self.pairs.data.captions[row] for row in batch.row_ids]
        images = self.policy.model.decode(latents)
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
        denoise = guide(algorithm.networks(self.source.policy)[0])
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
