"""Samples of a collection, one micro-batch at a time, with addressed randomness."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.core.randomness import Draws, batch_rows
from bench.rollouts.grid import evaluation_grid
from bench.rollouts.sampler import Predict, replay, roll_out
from bench.training.held_out import trained_rows
from bench.training.online import OnlineAlgorithm
from bench.training.policy import Policy
from bench.training.prompting import EncodedTexts, Prompting
from bench.training.rollout_batch import Sampled, Schedule


class RolloutSampler:
    """Samples at the model's resolution, with the levels of the evaluation's sampler and the algorithm's guidance.

    A sample depends on (seed, collection, prompt, number of the sample) and on the weights alone.

    Args:
        algorithm: says how is sampled.
        captions: of the data, by row.
        encoded: their embeddings.
        policy: the model; the network that samples is an argument of each call.
        seed: the training seed.
        size: samples of a collection: ``algorithm.group`` of each of its prompts, one prompt after another.
        device: where latents are.

    Raises:
        UserError: the algorithm's way of sampling is not possible for the model.
    """

    def __init__(
        self,
        algorithm: OnlineAlgorithm,
        captions: Sequence[str],
        encoded: EncodedTexts,
        policy: Policy,
        seed: int,
        size: int,
        device: torch.device,
    ) -> None:
        self._algorithm, self._captions, self._policy = algorithm, captions, policy
        self._seed, self._size, self._device = seed, size, device
        self._rows = trained_rows(captions, algorithm.held_out)
        self._prompting = Prompting(policy.model, encoded, algorithm.guidance_scale, device)
        self.grid = evaluation_grid(policy.model, algorithm.sampling_steps)
        self.schedule(0)  # a rule that is not for the model is refused before training

    def schedule(self, collection: int) -> Schedule:
        """How a collection is sampled."""
        return self._algorithm.schedule(self._policy.process, self._seed, collection)

    def captions(self, sampled: Sampled) -> list[str]:
        """The prompts of samples."""
        return [self._captions[row] for row in sampled.row_ids]

    def pictures(self, sampled: Sampled) -> NDArray[np.uint8]:
        """The decoded samples, uint8, (B, H, W, 3)."""
        return self._policy.model.decode(sampled.trajectories.final)

    def sample(self, schedule: Schedule, positions: Sequence[int], predict: Predict) -> Sampled:
        """The samples at some positions of a collection, under a network."""
        group, model = self._algorithm.group, self._policy.model
        chosen = batch_rows(len(self._rows), self._size // group, self._seed, schedule.number)
        prompts = [self._rows[place] for place in chosen]
        rows = [prompts[position // group] for position in positions]
        # A prompt may come twice in a collection, which may span two epochs: its samples are numbered over both.
        earlier = [prompts[: position // group].count(row) for position, row in zip(positions, rows, strict=True)]
        numbers = [times * group + position % group for times, position in zip(earlier, positions, strict=True)]
        draws = Draws(self._seed, schedule.number, rows, numbers)
        guide = self._prompting.guide([self._captions[row] for row in rows])
        shape = model.latent_shape(model.resolution, model.resolution)
        # One noise for all samples of a prompt is that of the first.
        firsts = Draws(self._seed, schedule.number, rows, [times * group for times in earlier])
        start = (firsts if schedule.same_start else draws).normal("rollout", shape).to(self._device)
        level = torch.full((len(rows),), self.grid.steps, device=self._device)
        noise = functools.partial(_noise_of_step, draws, start)
        trajectories = roll_out(
            guide(predict), self.grid, schedule.rules, start, level, noise, schedule.kept, schedule.means
        )
        return Sampled(positions, trajectories, guide, tuple(rows), draws)

    def replay_noise(self, schedule: Schedule, sampled: Sampled, predict: Predict) -> dict[int, float]:
        """The noise of replaying each of the kept sampling steps, by its number.

        It is the largest difference between a log-probability and its replay at batch size 1; at 2, too, if samples were made one by one.
        """
        worst = dict.fromkeys(schedule.kept, 0.0)
        sizes = (1,) if len(sampled.row_ids) > 1 else (1, 2)
        for (place, caption), size in itertools.product(enumerate(self.captions(sampled)), sizes):
            denoise = self._prompting.guide([caption] * size)(predict)
            again = sampled.trajectories.rows([place] * size)
            for which, step in enumerate(schedule.kept):
                log_prob = replay(denoise, self.grid, schedule.rules[step], again, which).log_prob
                worst[step] = max(worst[step], (log_prob - again.log_probs[:, which]).abs().max().item())
        return worst


def _noise_of_step(draws: Draws, like: Tensor, step: int) -> Tensor:
    return draws.normal_like(f"rollout {step}", like)
