"""Collections of an online run: sampled, judged, and cut into the global batches of the steps that train on them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from bench.core.chunks import batch_slices
from bench.core.errors import UserError
from bench.core.randomness import permutation
from bench.rollouts.rewards import Rewards
from bench.rollouts.rules import Rule
from bench.rollouts.sampler import Predict, deviation
from bench.training.judgement import judge, placebo_order, samples_compared
from bench.training.ledger import uncounted
from bench.training.online import OnlineAlgorithm
from bench.training.policy import Policy
from bench.training.rollout_batch import Collection, RolloutBatches, Sampled, Schedule
from bench.training.rollout_sampler import RolloutSampler
from bench.training.settings import TrainingSettings
from bench.training.stopping import stoppable

BEHAVIOUR = "behaviour"
"""The snapshot of the weights that sampled a collection; kept where several steps train on one, to sample it again on resume."""
FLOOR = "replay_floor"
"""The noise of replay: its name in the log, and the prefix of its values by sampling step in `Policy.measured`."""
SAFETY = 3.0
"""A ratio must be able to move by so many times the noise of replay before the objective reacts to it."""


class Collector:
    """Samples and judges a collection when the first step needs it; a `bench.training.batches.Source`.

    A collection depends on the seed, its number and the weights before its first step alone.  A run that is resumed within one
    samples it again, by the snapshot of those weights; that is not counted again.

    Args:
        algorithm: what is trained.
        sampler: samples.
        rewards: judge.
        policy: the network that samples.
        settings: batch sizes, and whether scores are shuffled.
        seed: the training seed.
        accelerator: the processes.
    """

    def __init__(
        self,
        algorithm: OnlineAlgorithm,
        sampler: RolloutSampler,
        rewards: Rewards,
        policy: Policy,
        settings: TrainingSettings,
        seed: int,
        accelerator: Accelerator,
    ) -> None:
        self._algorithm, self._sampler, self._rewards, self._policy = algorithm, sampler, rewards, policy
        self._settings, self._seed, self._accelerator = settings, seed, accelerator
        self._size = collection_size(algorithm, settings)
        refuse_cut_groups(algorithm, settings)
        self._collection: Collection | None = None

    def batches(self, step: int) -> RolloutBatches:
        """The samples of an optimizer step.

        Raises:
            TerminatedError: SIGTERM or Ctrl-C arrived while sampling.
            UserError: nothing can be learnt from the rewards, or replay is too noisy for the algorithm.
        """
        number, update = divmod(step, self._algorithm.updates)
        if self._collection is None or self._collection.schedule.number != number:
            self._collection = self._collect(number, update)
        rounds = self._rounds(number, update) * self._collection.schedule.losses
        return RolloutBatches(self._collection, self._sampler.grid, update, self._order(number, update), rounds)

    def _order(self, number: int, update: int) -> list[int]:
        """Positions, in the collection, of the samples of one of its optimizer steps."""
        size, together = self._settings.global_batch_size, self._algorithm.together
        order = permutation(self._size // together, self._seed, "samples", number).tolist()
        positions = [first * together + each for first in order for each in range(together)]
        return positions[update * size : (update + 1) * size]

    def _cut(self, number: int, update: int, rank: int) -> list[list[int]]:
        """Positions of the samples of each micro-batch of one process."""
        order, together = self._order(number, update), self._algorithm.together
        units = [order[piece] for piece in batch_slices(len(order), together)][rank :: self._accelerator.num_processes]
        pieces = batch_slices(len(units), self._settings.micro_batch_size // together)
        return [[position for unit in units[piece] for position in unit] for piece in pieces]

    def _rounds(self, number: int, update: int) -> int:
        """The largest number of micro-batches of samples that any process has."""
        return max(len(self._cut(number, update, rank)) for rank in range(self._accelerator.num_processes))

    @torch.no_grad()
    def _collect(self, number: int, update: int) -> Collection:
        """Sample and judge a collection, of which the first ``update`` steps have been taken."""
        algorithm, ledger, schedule = self._algorithm, self._policy.ledger, self._sampler.schedule(number)
        predict = self._behaviour(update)
        scores = {name: torch.zeros(self._size, dtype=torch.float64) for name in self._rewards.names}
        # A collection that is sampled again was counted the first time.
        with uncounted(ledger) if update else contextlib.nullcontext():
            micros = [self._sample(schedule, each, predict, scores) for each in range(self._algorithm.updates)]
            ledger.samples += self._size
        floor = self._noise_floor(schedule, update, predict)
        gathered = {name: self._summed(values) for name, values in scores.items()}
        self._rewards.check_spread(gathered, samples_compared(algorithm, self._size))
        found = judge(self._algorithm, gathered, self._rewards.signs, self._placebo(number))
        return Collection(schedule, micros, found.advantages, floor, {**found.record, FLOOR: floor})

    def _behaviour(self, update: int) -> Predict:
        """The network that samples a collection; on resume within one, with the weights that sampled it first."""
        policy, name = self._policy, self._algorithm.sampled_by
        if name is not None:  # it has not changed since
            return functools.partial(policy.predict_with_snapshot, name)
        if update:
            return functools.partial(policy.predict_with_snapshot, BEHAVIOUR)
        if self._algorithm.keeps_behaviour:
            policy.snapshot(BEHAVIOUR)
        return policy.predict

    def _sample(self, schedule: Schedule, update: int, predict: Predict, scores: Mapping[str, Tensor]) -> list[Sampled]:
        """This process's samples of one optimizer step of a collection; fills in their places in the collection's ``scores``."""
        cut = self._cut(schedule.number, update, self._accelerator.process_index)
        micros = []
        for positions in stoppable(self._accelerator, cut, self._rounds(schedule.number, update)):
            micros.append(self._sampler.sample(schedule, positions, predict))
            for name, found in self._scored(schedule, micros[-1]).items():
                scores[name][list(positions)] = found
        return micros

    def _scored(self, schedule: Schedule, sampled: Sampled) -> dict[str, Tensor]:
        """Raw scores of samples by metric, float64, (B,); the first image of a run is scored twice more, to compare."""
        before = self._rewards.calls
        images, prompts = self._sampler.pictures(sampled), self._sampler.captions(sampled)
        if schedule.number == 0 and not before and self._accelerator.is_main_process:
            self._rewards.check_determinism(images[:1], prompts[:1])
        scores = self._rewards.score(images, prompts)
        self._policy.ledger.reward_calls += self._rewards.calls - before
        return scores

    def _summed(self, scores: Tensor) -> Tensor:
        """Scores of all samples, float64 on the CPU, from those that each process has filled in."""
        summed: Tensor = self._accelerator.reduce(scores.to(self._accelerator.device), reduction="sum")
        return summed.cpu()

    def _placebo(self, number: int) -> Tensor | None:
        """From which sample each sample takes its scores, int64, (N,); None for its own."""
        shuffled = self._settings.labels != "as given"
        return placebo_order(self._algorithm, self._size, self._seed, number) if shuffled else None

    def _noise_floor(self, schedule: Schedule, update: int, predict: Predict) -> float:
        """The noise of replay of the kept sampling steps, over all processes.

        It is measured once in a run, of every step that some collection may train, on a micro-batch that keeps all of them; not counted.

        Raises:
            UserError: it is too close to what the objective reacts to.
        """
        rules = self._algorithm.noisy_rules(self._policy.process)
        names, measured = {step: floor_of(step) for step in rules}, self._policy.measured
        if not measured.keys() >= set(names.values()):
            every = [rules.get(step, rule) for step, rule in enumerate(schedule.rules)]
            whole = dataclasses.replace(schedule, kept=sorted(rules), rules=every, means=())
            positions = self._cut(schedule.number, update, self._accelerator.process_index)[0]
            with uncounted(self._policy.ledger):
                sampled = self._sampler.sample(whole, positions, predict)
                noise = self._sampler.replay_noise(whole, sampled, predict)
            own = torch.tensor([[noise[step] for step in names]], dtype=torch.float64, device=self._accelerator.device)
            largest = self._accelerator.gather(own).amax(0).tolist()
            self._refuse_clipped_noise(dict(zip(names, largest, strict=True)), rules)
            measured.update(zip(names.values(), largest, strict=True))
        return max((measured[names[step]] for step in schedule.kept), default=0.0)

    def _refuse_clipped_noise(self, noise: Mapping[int, float], rules: Mapping[int, Rule]) -> None:
        algorithm, least, grid = self._algorithm, self._algorithm.least_ratio, self._sampler.grid
        if least is None:
            return
        seen = {step: noise[step] * algorithm.ratio_scale(deviation(rule, step, grid)) for step, rule in rules.items()}
        step = max(seen, key=lambda each: seen[each])
        if least < SAFETY * seen[step]:
            raise UserError(
                f"replay is noisy: at another batch size log-probabilities of sampling step {step + 1} differ by {noise[step]:.2g}, so that a clip "
                f"range of {least:g} would clip noise; use a clip of at least {SAFETY * seen[step]:.2g}, or precision=fp32"
            )


def floor_of(step: int) -> str:
    """The name under which a policy keeps the noise of replay of a sampling step."""
    return f"{FLOOR}/{step}"


def collection_size(algorithm: OnlineAlgorithm, settings: TrainingSettings) -> int:
    """Samples of a collection.

    Raises:
        UserError: they are not whole groups.
    """
    size = settings.global_batch_size * algorithm.updates
    if size % algorithm.group:
        raise UserError(
            f"{size} samples of a collection (global_batch_size times updates) are not whole groups of {algorithm.group}; "
            "change global_batch_size or group"
        )
    return size


def refuse_cut_groups(algorithm: OnlineAlgorithm, settings: TrainingSettings) -> None:
    """Raise a `UserError` if samples that must share a micro-batch would not."""
    together, title = algorithm.together, algorithm.info.title
    for name in ("global_batch_size", "micro_batch_size"):
        size = getattr(settings, name)
        if size % together:
            raise UserError(
                f"{title} compares the {together} samples of a prompt; make {name} a multiple of {together}"
            )
