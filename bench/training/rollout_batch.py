"""A collection of images, the global batches that are cut from it, and their micro-batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from bench.core.randomness import Draws
from bench.models.forward_process import ForwardProcess
from bench.rollouts.grid import Grid
from bench.rollouts.rules import Rule
from bench.rollouts.sampler import Denoise, Predict, Step, Trajectories, replay
from bench.training.algorithm import Algorithm
from bench.training.diagnostics import check_ratio
from bench.training.noising import NoisedImages, noised_images


@dataclasses.dataclass(frozen=True, slots=True)
class RolloutBatch:
    """One loss of B samples, in the micro-batch that they were sampled in.

    Attributes:
        trajectories: how the samples were made.
        which: which of their losses, 0-based; if sampling steps were kept, the loss is about the kept step of that place.
        rule: the rule of that step, or of the last sampling step if none was kept.
        grid: the levels of the sampler.
        guide: makes the denoiser of a network, with the guidance of the rollout.
        advantages: of the samples, float32, (B,).
        row_ids: row numbers of the prompts in the data, B of them.
        batch_positions: positions of these losses in the step's global batch, B of them.
        draws: random draws for these samples, of their collection; the same however the batch is cut.
        global_batch_stats: see `bench.PairBatch`.
    """

    trajectories: Trajectories
    which: int
    rule: Rule
    grid: Grid
    guide: Callable[[Predict], Denoise]
    advantages: Tensor
    row_ids: tuple[int, ...]
    batch_positions: tuple[int, ...]
    draws: Draws
    global_batch_stats: Tensor | None = None

    @property
    def sampling_step(self) -> int | None:
        """Number of the sampling step that the loss is about, 0 for the first; None if no step was kept."""
        return self.trajectories.kept[self.which] if self.trajectories.kept else None

    @property
    def clean(self) -> Tensor:
        """The samples' latents, (B, ...)."""
        return self.trajectories.final

    def noised(self, process: ForwardProcess) -> NoisedImages:
        """The samples at random training timesteps, others for every loss; ``process`` is that of the policy."""
        return noised_images(process, self.draws, self.clean, str(self.which))

    @property
    def log_probs(self) -> Tensor:
        """Log-probabilities of the step when it was sampled, mean over elements, float32, (B,)."""
        return self.trajectories.log_probs[:, self.which]

    @property
    def means(self) -> Tensor:
        """Means of the step's next latents when it was sampled, (B, ...).

        Raises:
            ValueError: the algorithm does not say `bench.StepwiseAlgorithm.compares_means`.
        """
        if self.trajectories.means is None:
            raise ValueError("an algorithm that reads the means of sampled steps must say compares_means")
        return self.trajectories.means[:, self.which]

    @property
    def timesteps(self) -> Tensor:
        """Times at which the step started, for diagnostics, int64, (B,); see `Grid.training_times`."""
        return self.grid.training_times(self.trajectories.levels[:, self.which])

    @property
    def step_lengths(self) -> Tensor:
        """By how much the noise level falls in the step, float32, (B,)."""
        levels, like = self.trajectories.levels[:, self.which], self.advantages
        process = self.grid.process
        return (process.sigma(levels, like) - process.sigma(levels - 1, like)).flatten()

    def replay(self, predict: Predict) -> Step:
        """The same step under a network, such as `bench.Policy.predict` or `bench.Policy.reference`, with the rollout's guidance."""
        return replay(self.guide(predict), self.grid, self.rule, self.trajectories, self.which)


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Samples of one micro-batch.

    Attributes:
        positions: their positions in the collection, which is prompt by prompt.
        trajectories: how they were made.
        guide: makes the denoiser of a network under their conditioning.
        row_ids: row numbers of their prompts in the data.
        draws: their random draws.
    """

    positions: Sequence[int]
    trajectories: Trajectories
    guide: Callable[[Predict], Denoise]
    row_ids: tuple[int, ...]
    draws: Draws


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How a collection is sampled.

    Attributes:
        number: the collection's number, 0-based.
        kept: the sampling steps that are trained.
        rules: the rule of every sampling step.
        losses: how many losses each sample has: one per kept step if any is kept.
        same_start: whether all samples of a prompt start from the same noise.
        means: the trained sampling steps whose means are kept: all of them, or none.
    """

    number: int
    kept: Sequence[int]
    rules: Sequence[Rule]
    losses: int
    same_start: bool = False
    means: Sequence[int] = ()

    def rule(self, which: int) -> Rule:
        """The rule of the step that a loss is about; of the last step if none is kept."""
        return self.rules[self.kept[which] if self.kept else -1]


@dataclasses.dataclass(frozen=True)
class Collection:
    """This process's share of a collection, and what is known about all of it.

    Attributes:
        schedule: how it was sampled.
        micros: this process's micro-batches, by optimizer step of the collection.
        advantages: of all samples of the collection, float32, (N,).
        floor: noise of replay: the largest difference of a log-probability at another batch size.
        record: what the log says about the collection.
    """

    schedule: Schedule
    micros: Sequence[Sequence[Sampled]]
    advantages: Tensor
    floor: float
    record: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class RolloutBatches:
    """One process's share of one optimizer step on a collection; see `bench.training.batches.Batches`.

    Attributes:
        collection: what is trained on.
        grid: the levels of the sampler.
        update: the number of the step within the collection, 0-based.
        order: positions, in the collection, of the samples of the step.
        rounds: see `bench.training.batches.Batches`.
    """

    collection: Collection
    grid: Grid
    update: int
    order: Sequence[int]
    rounds: int

    @property
    def size(self) -> int:
        """Samples times losses of each."""
        return len(self.order) * self.collection.schedule.losses

    @property
    def record(self) -> Mapping[str, float]:
        """Rewards of the collection."""
        return self.collection.record

    def check(self, algorithm: Algorithm, record: Mapping[str, Any]) -> None:
        """Before the first update from the collection, the importance ratio must be 1, where sampling steps are trained."""
        if self.update == 0 and self.collection.schedule.kept:
            check_ratio(record, self.collection.floor)

    def __iter__(self) -> Iterator[RolloutBatch]:
        collection, schedule = self.collection, self.collection.schedule
        places = {position: place for place, position in enumerate(self.order)}
        for micro in collection.micros[self.update]:
            chosen = list(micro.positions)
            advantages = collection.advantages[chosen].to(micro.trajectories.final.device)
            for which in range(schedule.losses):
                yield RolloutBatch(
                    trajectories=micro.trajectories,
                    which=which,
                    rule=schedule.rule(which),
                    grid=self.grid,
                    guide=micro.guide,
                    advantages=advantages,
                    row_ids=micro.row_ids,
                    batch_positions=tuple(places[position] * schedule.losses + which for position in chosen),
                    draws=micro.draws,
                )
