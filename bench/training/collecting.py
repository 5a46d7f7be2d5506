"""Collections of an online run: sampled, judged, and cut into the global batches of the steps that train on them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from bench.core.chunks import batch_slices
from bench.core.errors import UserError
from bench.core.randomness import Draws, batch_rows, permutation
from bench.models.family import Condition
from bench.models.sampling import size_and_guidance
from bench.rollouts.advantages import advantages, share_without_spread
from bench.rollouts.grid import evaluation_grid
from bench.rollouts.rewards import Rewards
from bench.rollouts.rules import Rule
from bench.rollouts.sampler import Denoise, Predict, guided, replay, roll_out
from bench.training.online import OnlineAlgorithm
from bench.training.policy import Policy
from bench.training.rollout_batch import Collection, RolloutBatches, Sampled
from bench.training.settings import TrainingSettings
from bench.training.stopping import stoppable

BEHAVIOUR = "behaviour"
"""The snapshot of the weights that sampled a collection; kept where several steps train on one, to sample it again on resume."""
SAFETY = 3.0
"""A ratio must be able to move by so many times the noise of replay before the objective reacts to it."""


class EncodedTexts(Protocol):
    """The part of `bench.data.cache.EncodedTexts` that collections need; all tensors are float32."""

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings of captions, each (B, ...)."""

    def negative(self, count: int) -> dict[str, Tensor]:
        """Embeddings of an empty negative prompt, each (``count``, ...)."""


class Collector:
    """Samples and judges a collection when the first step needs it; a `bench.training.batches.Source`.

    A collection depends on (seed, number, prompt, sample) and on the weights before its first step alone.  A run that is resumed
    within one samples it again, by the snapshot of those weights, which is not counted again.

    Args:
        algorithm: what is trained.
        captions: of the data, by row.
        encoded: their embeddings.
        settings: batch sizes.
        seed: the training seed.
        policy: samples.
        rewards: judge.
        accelerator: the processes.

    Raises:
        UserError: the samples of a collection are not whole groups, or the algorithm's sampling is not possible for the model.
    """

    def __init__(
        self,
        algorithm: OnlineAlgorithm,
        captions: Sequence[str],
        encoded: EncodedTexts,
        settings: TrainingSettings,
        seed: int,
        policy: Policy,
        rewards: Rewards,
        accelerator: Accelerator,
    ) -> None:  # fmt: skip
        self._algorithm, self._captions, self._encoded, self._settings = algorithm, captions, encoded, settings
        self._seed, self._policy, self._rewards, self._accelerator = seed, policy, rewards, accelerator
        self._samples = settings.global_batch_size * algorithm.updates
        if self._samples % algorithm.group:
            raise UserError(
                f"{self._samples} samples of a collection (global_batch_size times updates) are not whole groups of "
                f"{algorithm.group}; change global_batch_size or group"
            )
        self._grid = evaluation_grid(policy.model, algorithm.sampling_steps)
        algorithm.rules(
            policy.process, algorithm.kept(seed, 0)
        )  # a rule that is not for the model is refused before training
        self._collection: Collection | None = None
        self._floor: float | None = None

    def batches(self, step: int) -> RolloutBatches:
        """The samples of an optimizer step.

        Raises:
            TerminatedError: SIGTERM or Ctrl-C arrived while sampling.
            UserError: nothing can be learnt from the rewards, or replay is too noisy for the algorithm.
        """
        number, update = divmod(step, self._algorithm.updates)
        if self._collection is None or self._collection.number != number:
            self._collection = self._collect(number, update)
        trained = len(self._collection.kept)
        most = max(len(self._cut(number, update, rank)) for rank in range(self._accelerator.num_processes))
        return RolloutBatches(self._collection, self._grid, update, self._order(number, update), most * trained)

    def _order(self, number: int, update: int) -> list[int]:
        """Positions, in the collection, of the samples of one of its optimizer steps."""
        size = self._settings.global_batch_size
        order = permutation(self._samples, self._seed, "samples", number).tolist()
        return order[update * size : (update + 1) * size]

    def _cut(self, number: int, update: int, rank: int) -> list[list[int]]:
        """Positions of the samples of each micro-batch of one process."""
        own = self._order(number, update)[rank :: self._accelerator.num_processes]
        return [own[piece] for piece in batch_slices(len(own), self._settings.micro_batch_size)]

    @torch.no_grad()
    def _collect(self, number: int, update: int) -> Collection:
        algorithm, ledger = self._algorithm, self._policy.ledger
        before, calls = dataclasses.replace(ledger), self._rewards.calls
        predict = self._behaviour(update)
        kept = algorithm.kept(self._seed, number)
        rules = algorithm.rules(self._policy.process, kept)
        scores = torch.zeros(self._samples, dtype=torch.float64)
        micros = []
        for each in range(algorithm.updates):
            cuts = [self._cut(number, each, rank) for rank in range(self._accelerator.num_processes)]
            own = stoppable(self._accelerator, cuts[self._accelerator.process_index], max(map(len, cuts)))
            micros.append([self._sample(number, positions, predict, rules, kept, scores) for positions in own])
        ledger.samples += self._samples
        ledger.reward_calls += self._rewards.calls - calls
        if update:  # counted when it was first sampled
            ledger.restore(before)
        gathered = self._accelerator.reduce(scores.to(self._accelerator.device), reduction="sum").cpu()
        rewards = gathered.reshape(-1, algorithm.group)
        self._rewards.check_spread({algorithm.reward: gathered})
        clip = algorithm.advantage_clip
        record = {
            "reward": rewards.mean().item(),
            "reward_std": rewards.std(correction=0).item(),
            "groups_without_spread": share_without_spread(rewards),
        }
        found = advantages(rewards, algorithm.advantage).clamp(-clip, clip).flatten().float()
        if self._floor is None:
            self._floor = self._noise_floor(micros[update][0], predict, rules, kept)
        record["replay_floor"] = self._floor
        return Collection(number, rules, kept, micros, rewards, found, self._floor, record)

    def _behaviour(self, update: int) -> Predict:
        """The network that samples a collection: the current weights, or on resume within one those that sampled it first."""
        if update:
            return functools.partial(self._policy.predict_with_snapshot, BEHAVIOUR)
        if self._algorithm.updates > 1:
            self._policy.snapshot(BEHAVIOUR)
        return self._policy.predict

    def _sample(
        self,
        number: int,
        positions: Sequence[int],
        predict: Predict,
        rules: Sequence[Rule],
        kept: Sequence[int],
        scores: Tensor,
    ) -> Sampled:
        """Sample and judge one micro-batch; ``scores`` of the collection are filled in."""
        policy, group, device = self._policy, self._algorithm.group, self._accelerator.device
        prompts = batch_rows(len(self._captions), self._samples // group, self._seed, number)
        rows = [prompts[position // group] for position in positions]
        # A prompt may come twice in a collection, which may span two epochs: samples are numbered over both.
        earlier = [prompts[: position // group].count(row) for position, row in zip(positions, rows, strict=True)]
        samples = [times * group + position % group for times, position in zip(earlier, positions, strict=True)]
        draws = Draws(self._seed, number, rows, samples)
        captions = [self._captions[row] for row in rows]
        guide = self._guide(captions)
        start = draws.normal("rollout", policy.model.latent_shape(*[policy.model.resolution] * 2)).to(device)
        level = torch.full((len(rows),), self._grid.steps, device=device)
        trajectories = roll_out(
            guide(predict), self._grid, rules, start, level,
            lambda step: draws.normal_like(f"rollout {step}", start), kept,
        )  # fmt: skip
        images = policy.model.decode(trajectories.final)
        if number == 0 and not self._rewards.calls:
            self._rewards.check_determinism(images[:1], captions[:1])
        scores[list(positions)] = self._rewards.score(images, captions)[self._algorithm.reward]
        return Sampled(positions, trajectories, guide, tuple(rows), draws)

    def _guide(self, captions: Sequence[str]) -> Callable[[Predict], Denoise]:
        """Makes a network's denoiser for some captions, at the model's resolution and the algorithm's guidance."""
        model, device, scale = self._policy.model, self._accelerator.device, self._algorithm.guidance_scale
        side = model.resolution
        settings = model.generation.model_copy(update={"height": side, "width": side, "guidance_scale": scale})

        def conditioning(embeddings: Mapping[str, Tensor]) -> Condition:
            own = {name: value.to(device) for name, value in embeddings.items()}
            return {**own, **size_and_guidance(model, settings, own)}

        condition = conditioning(self._encoded.condition(captions))
        negative = conditioning(self._encoded.negative(len(captions)))
        second = scale if model.classifier_free else 1.0
        return lambda predict: guided(predict, condition, negative, second)

    def _noise_floor(self, micro: Sampled, predict: Predict, rules: Sequence[Rule], kept: Sequence[int]) -> float:
        """The largest difference between a kept log-probability and its replay at batch size 1, over the processes; not counted.

        Raises:
            UserError: it is too close to what the objective reacts to.
        """
        before, trajectories = dataclasses.replace(self._policy.ledger), micro.trajectories
        worst = 0.0
        for place, row in enumerate(micro.row_ids):
            guide = self._guide([self._captions[row]])
            alone = trajectories.rows([place])
            for which, step in enumerate(kept):
                found = replay(guide(predict), self._grid, rules[step], alone, which).log_prob
                worst = max(worst, (found - alone.log_probs[:, which]).abs().max().item())
        self._policy.ledger.restore(before)
        floor: float = self._accelerator.gather(torch.tensor([worst], device=self._accelerator.device)).max().item()
        least = self._algorithm.least_ratio
        if least is not None and least < SAFETY * floor:
            raise UserError(
                f"replay is noisy: at another batch size log-probabilities differ by {floor:.2g}, so that a clip range of "
                f"{least:g} would clip noise; use a clip of at least {SAFETY * floor:.2g}, or precision=fp32"
            )
        return floor
