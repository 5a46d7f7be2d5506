"""Global batches for steps that are run only to find out what they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.data.preferences import PreferenceData
from bench.planning.dummy_data import DummyEncoding
from bench.records.scores import MetricInfo
from bench.rollouts.rewards import Rewards
from bench.scoring.metric import Metric
from bench.training.algorithm import Algorithm
from bench.training.batches import Batches, Captioned, PairSource, StepBatches
from bench.training.collecting import Collector, floor_of
from bench.training.online import OnlineAlgorithm, samples_together
from bench.training.reward_gradients import GradientSource, RewardGradientAlgorithm
from bench.training.rollout_batch import Sampled
from bench.training.rollout_sampler import RolloutSampler
from bench.training.step import Trainer
from bench.training.step_pair_source import StepPairSource
from bench.training.step_pairs import StepPairAlgorithm


def dummy_batches(trainer: Trainer, data: PreferenceData, encoded: DummyEncoding, step: int) -> Batches:
    """The global batch of a step: pairs of dummy data, or samples of an online algorithm, which are neither decoded nor judged.

    The policy's replay counts as exact.
    """
    algorithm, settings, policy, accelerator = trainer.algorithm, trainer.settings, trainer.policy, trainer.accelerator
    if isinstance(algorithm, RewardGradientAlgorithm):
        pairs = PairSource(data, encoded, settings, 0, accelerator)
        return BlankSource(algorithm, pairs, policy, Rewards({})).batches(step)
    if isinstance(algorithm, StepPairAlgorithm):
        pairs = PairSource(data, encoded, settings, 0, accelerator)
        return BlankStepPairSource(algorithm, pairs, policy, Rewards({})).batches(step)
    if not isinstance(algorithm, OnlineAlgorithm):
        return StepBatches(data, encoded, settings, 0, step, accelerator)
    # What a sample costs depends neither on how samples are grouped, unless they are compared, nor on how often a collection is used.
    single = algorithm.model_copy(
        update={"group": algorithm.together, "updates": 1, "advantage": "gardo", "combination": "rewards"}
    )
    # Replay is taken as exact, since measuring its noise would compute what no ledger counts.
    policy.measured.update({floor_of(number): 0.0 for number in single.noisy_rules(policy.process)})
    size = settings.global_batch_size
    sampler = BlankSampler(single, data.captions, encoded, policy, 0, size, accelerator.device)
    rewards = Rewards(dict.fromkeys(algorithm.rewards, BlankMetric))
    return Collector(single, sampler, rewards, policy, settings, 0, accelerator).batches(step)


def whole_groups(algorithm: Algorithm, count: int) -> int:
    """A number of samples or pairs, rounded up to as many as must share a micro-batch."""
    together = samples_together(algorithm)
    return math.ceil(count / together) * together


class BlankSampler(RolloutSampler):
    """A sampler whose images are blank, so that no autoencoder is needed."""

    def pictures(self, sampled: Sampled) -> NDArray[np.uint8]:
        return np.zeros((len(sampled.row_ids), 1, 1, 3), dtype=np.uint8)


class BlankSource(GradientSource):
    """A source of captions whose reward is the mean of the latents, so that neither an autoencoder nor a metric is needed."""

    def reward(self, latents: Tensor, batch: Captioned, step: int) -> Tensor:
        return latents.flatten(1).mean(1)


class BlankStepPairSource(StepPairSource):
    """The same for algorithms that compare candidates."""

    def scores(self, latents: Tensor, batch: Captioned, step: int) -> Tensor:
        return latents.flatten(1).mean(1).double().cpu()

    def reward(self, latents: Tensor, batch: Captioned, step: int) -> Tensor:
        return latents.flatten(1).mean(1)


class BlankMetric(Metric):
    """A metric that finds all images equally good."""

    info: ClassVar[MetricInfo] = MetricInfo("blank", "any", "none", "ours", "none")
    continuous: ClassVar[bool] = False

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        return cls()

    def identity(self) -> dict[str, Any]:
        return {}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(images))
