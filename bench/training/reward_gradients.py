"""Algorithms that follow the gradient of their reward through the decoder and the last sampling steps."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from bench.core.randomness import Draws
from bench.rollouts.grid import Grid, evaluation_grid
from bench.rollouts.rewards import Rewards
from bench.rollouts.rules import ODE
from bench.rollouts.sampler import Denoise, Predict, roll_out
from bench.training.algorithm import Algorithm, Need, StepOutput
from bench.training.batches import Captioned, PairSource, StepBatches, make_batch
from bench.training.online import SamplingAlgorithm
from bench.training.pair_batch import PairBatch
from bench.training.policy import Policy
from bench.training.prompting import Prompting


class Unfinished(NamedTuple):
    """Samples on their way from noise to images.

    Attributes:
        latents: (B, ...).
        level: their noise levels, of the sampler's grid, int64, (B,); 0 is an image.
    """

    latents: Tensor
    level: Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class GradientBatch:
    """Captions of a micro-batch, of which `RewardGradientAlgorithm.step` samples images, one of each.

    Attributes:
        captioned: the rows of the data, with their random draws.
        read: reads what the data has of the same rows; see `pairs`.
        start: the noise that sampling starts from, and its level.
        grid: the levels of the sampler.
        guide: makes the denoiser of a network, for the captions and under the algorithm's guidance.
        reward: from latents of images, (B, ...), to the weighted sum of their rewards, float32, (B,), with gradient; higher is
            better.  Every call is counted.
        global_batch_stats: see `bench.PairBatch`.
    """

    captioned: Captioned
    read: Callable[[], PairBatch]
    start: Unfinished
    grid: Grid
    guide: Callable[[Predict], Denoise]
    reward: Callable[[Tensor], Tensor]
    global_batch_stats: Tensor | None = None

    @property
    def pairs(self) -> PairBatch:
        """What the data has of the same rows, read anew by every call; some of its captions may be dropped.

        Raises:
            ValueError: the algorithm does not state `bench.Need.IMAGES`.
        """
        return self.read()

    @property
    def row_ids(self) -> tuple[int, ...]:
        """Row numbers of the captions in the data."""
        return self.captioned.row_ids

    @property
    def batch_positions(self) -> tuple[int, ...]:
        """Positions of these rows in the step's global batch."""
        return self.captioned.batch_positions

    @property
    def draws(self) -> Draws:
        """Random draws for these rows."""
        return self.captioned.draws

    def sample(self, predict: Predict, samples: Unfinished, steps: int) -> Unfinished:
        """Samples after so many more deterministic steps under a network; with gradient where gradients are enabled."""
        moved = roll_out(self.guide(predict), self.grid, [ODE] * steps, samples.latents, samples.level)
        return Unfinished(moved.final, moved.level)

    def predict_clean(self, predict: Predict, samples: Unfinished) -> Tensor:
        """The images that a network sees in unfinished samples, as latents, (B, ...)."""
        prediction = self.guide(predict)(samples.latents, self.grid.at(samples.level))
        return self.grid.process.to_x0(samples.latents, prediction, samples.level)

    def noise_again(self, clean: Tensor, purpose: str) -> Unfinished:
        """Images, as latents, with fresh noise of the last sampling step's level; without gradient."""
        last = torch.ones_like(self.start.level)
        noise = self.draws.normal_like(purpose, clean)
        return Unfinished(self.grid.process.add_noise(clean.detach(), noise, last), last)

    def timesteps(self, samples: Unfinished) -> Tensor:
        """Times of unfinished samples, for diagnostics, int64, (B,); see `Grid.training_times`."""
        return self.grid.training_times(samples.level)


class RewardGradientAlgorithm(SamplingAlgorithm):
    """A sampling algorithm that needs the gradient of its rewards, and neither log-probabilities nor groups.

    `step` samples images of a micro-batch's captions itself, by `GradientBatch.sample`, and back-propagates from
    `GradientBatch.reward`.
    """

    needs: ClassVar[frozenset[Need]] = SamplingAlgorithm.needs | {Need.REWARD_GRADIENT}
    placebo: ClassVar[str | None] = None
    no_placebo: ClassVar[str] = "it follows the gradient of its reward, which shuffled scores do not change"

    @abc.abstractmethod
    def step(self, batch: GradientBatch, policy: Policy) -> StepOutput:
        """One loss of each caption of a micro-batch, unreduced; log what `GradientBatch.reward` returned as ``reward``."""

    def check_first_step(self, record: Mapping[str, Any]) -> None:
        """Raise a `UserError` if the means of the first step's logs say that its loss follows no reward; by default it does."""


@dataclasses.dataclass(frozen=True, slots=True)
class GradientSource:
    """Global batches of captions for algorithms that follow the gradient of their reward.

    Attributes:
        algorithm: says how is sampled.
        pairs: the data.
        policy: the model.
        rewards: judge.
    """

    algorithm: SamplingAlgorithm
    pairs: PairSource
    policy: Policy
    rewards: Rewards

    def batches(self, step: int) -> GradientBatches:
        """The captions of an optimizer step."""
        self.policy.ledger.samples += self.pairs.settings.global_batch_size
        model, algorithm = self.policy.model, self.algorithm
        prompting = Prompting(model, self.pairs.encoded, algorithm.guidance_scale, self.pairs.accelerator.device)
        grid = evaluation_grid(model, algorithm.sampling_steps)
        return GradientBatches(self, self.pairs.batches(step), prompting, grid)

    def reward(self, latents: Tensor, batch: Captioned, step: int) -> Tensor:
        """The weighted sum of the rewards of images, float32, (B,); the first image of a run is scored twice more, to compare.

        Args:
            latents: the images, (B, ...).
            batch: whose captions they are of.
            step: the optimizer step.

        Raises:
            UserError: a reward is not finite, has no gradient, or does not repeat itself.
        """
        rewards, before = self.rewards, self.rewards.calls
        prompts = [self.pairs.data.captions[row] for row in batch.row_ids]
        pixels = self.policy.model.decode_pixels(latents)
        if step == 0 and self.pairs.accelerator.is_main_process:
            rewards.check_gradient(pixels[:1], prompts[:1])
        scores = rewards.score_pixels(pixels, prompts)
        self.policy.ledger.reward_calls += rewards.calls - before
        return rewards.weighted(scores, self.algorithm.weights)


@dataclasses.dataclass(frozen=True)
class GradientBatches:
    """One process's share of one optimizer step; see `bench.training.batches.Batches`.

    Attributes:
        source: what is trained, and on what.
        pairs: what the data has of the same rows.
        prompting: makes denoisers for captions.
        grid: the levels of the sampler.
    """

    source: GradientSource
    pairs: StepBatches
    prompting: Prompting
    grid: Grid
    record: ClassVar[Mapping[str, float]] = {}

    @property
    def size(self) -> int:
        """Captions of the global batch."""
        return self.pairs.size

    @property
    def rounds(self) -> int:
        """See `bench.training.batches.Batches`."""
        return self.pairs.rounds

    def check(self, algorithm: Algorithm, record: Mapping[str, Any]) -> None:
        """The loss of the first step must follow a reward."""
        if self.pairs.step == 0 and isinstance(algorithm, RewardGradientAlgorithm):
            algorithm.check_first_step(record)

    def __iter__(self) -> Iterator[GradientBatch]:
        model, device = self.prompting.model, self.prompting.device
        shape = model.latent_shape(model.resolution, model.resolution)
        for captioned in self.pairs.captioned():
            noise = captioned.draws.normal("rollout", shape).to(device)
            level = torch.full((len(noise),), self.grid.steps, device=device)
            yield GradientBatch(
                captioned,
                functools.partial(make_batch, self.pairs, captioned),
                Unfinished(noise, level),
                self.grid,
                self.prompting.guide([self.pairs.data.captions[row] for row in captioned.row_ids]),
                functools.partial(self.source.reward, batch=captioned, step=self.pairs.step),
            )
