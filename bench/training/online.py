"""The interfaces of algorithms that sample while they train; most collect images, judge them, then take optimizer steps."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import pydantic
from pydantic import BeforeValidator, Field
from torch import Tensor

from bench.core.randomness import permutation
from bench.models.family import ModelFamily
from bench.models.forward_process import ForwardProcess
from bench.rollouts.advantages import Combination, Convention, combined_advantages
from bench.rollouts.grid import evaluation_grid
from bench.rollouts.rules import ODE, Rule, RuleName, find_rule
from bench.rollouts.sampler import check_noise
from bench.training.algorithm import Algorithm, MetricNames, Need, StepOutput
from bench.training.policy import Policy
from bench.training.rollout_batch import RolloutBatch, Schedule

Numbers = Annotated[
    tuple[float, ...], BeforeValidator(lambda given: given.split(",") if isinstance(given, str) else given)
]
"""Numbers, typed on the command line as ``1,0.5``."""
ChosenRule = Annotated[
    RuleName | None,
    Field(description="sampling step: ddim, flow-sde, dance-sde or cps; by default flow-sde for flows, else ddim"),
]
"""The rule of sampling steps that are trained."""
Strength = Annotated[
    float | None,
    Field(gt=0, description="strength of the rule's noise, at most 1 for ddim and cps; by default the published one"),
]
"""How much noise it has."""


class SamplingAlgorithm(Algorithm):
    """An algorithm that trains on images of its own, of the data's captions, and on what metrics say about them.

    Derive from `OnlineAlgorithm` or from `bench.RewardGradientAlgorithm`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PROMPTS, Need.REWARD})
    # With all weights, a step at the default learning rate moves the policy several nats away from what it has sampled.
    training_defaults: ClassVar[Mapping[str, Any]] = {"caption_dropout": 0.0, "trainable": "lora"}

    rewards: MetricNames = Field(default=("pickscore",), min_length=1, description="metrics that judge the images")
    reward_weights: Numbers = Field(default=(), description="a weight per reward; by default 1 each")
    sampling_steps: int = Field(default=10, ge=1, le=1000, description="number of sampling steps")
    guidance_scale: float = Field(
        default=1.0, ge=1, description="classifier-free guidance, in sampling and training alike"
    )
    held_out: int = Field(
        default=16,
        ge=0,
        description="captions that are not trained on, a quarter of the data's at most; --evaluate-every judges images of them",
    )

    @pydantic.model_validator(mode="after")
    def _a_weight_per_reward(self) -> Self:
        if self.reward_weights and len(self.reward_weights) != len(self.rewards):
            raise ValueError(
                f"{len(self.reward_weights)} reward_weights are not one for each of {len(self.rewards)} rewards"
            )
        if self.reward_weights and not any(self.reward_weights):
            raise ValueError("all reward_weights are 0, so that there is nothing to learn")
        return self

    @property
    def reads_pictures(self) -> bool:
        return not self.needs.isdisjoint({Need.IMAGES, Need.PAIRS})

    @property
    def trained_on(self) -> tuple[str, ...]:
        return self.rewards

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each reward."""
        return self.reward_weights or (1.0,) * len(self.rewards)

    @property
    def judged(self) -> int:
        """How many images are judged per sample."""
        return 1

    @property
    def judged_once(self) -> int:
        """How many images each metric judges besides, at the start of a run, to see whether it repeats itself."""
        return 2

    def captions_together(self, global_batch_size: int) -> int:
        """How many captions are sampled at a time, with repeats, given how many samples an optimizer step trains on."""
        return global_batch_size

    def sampler(self, process: ForwardProcess) -> Sequence[Rule]:
        """The rule of every sampling step of images that are made to follow the progress; by default the deterministic sampler."""
        return [ODE] * self.sampling_steps

    def noisy_rules(self, process: ForwardProcess) -> Mapping[int, Rule]:
        """The rules of the sampling steps that cannot be trained without noise, by number, 0 for the first; by default none."""
        return {}


def check_sampling(algorithm: SamplingAlgorithm, model: ModelFamily) -> None:
    """Raise a `UserError` if a model cannot be sampled as an algorithm says: by its levels, its rule, its noise or its guidance."""
    model.check(model.generation.model_copy(update={"guidance_scale": algorithm.guidance_scale}))
    grid = evaluation_grid(model, algorithm.sampling_steps)
    algorithm.sampler(model.process)
    check_noise(algorithm.noisy_rules(model.process), grid)


class OnlineAlgorithm(SamplingAlgorithm):
    """A sampling algorithm that collects images and learns from their advantages; the rewards need no gradient.

    A collection has ``updates`` global batches; each is ``global_batch_size`` samples, ``group`` of them per prompt.  `step` is
    called once per loss of `schedule` for every micro-batch and returns a loss per sample; the update is the mean over all.
    Derive from `bench.StepwiseAlgorithm` to train sampling steps, or from `bench.ForwardAlgorithm` to train on noised samples.
    """

    placebo: ClassVar[str | None] = (
        "scores are permuted among the samples that are compared: those of a prompt, or with advantage=ddpo those of a collection"
    )
    sampled_by: ClassVar[str | None] = None
    """Name of the snapshot that samples, which may change between collections only; None for the current weights."""

    combination: Combination = Field(
        default="advantages",
        description="how several rewards are combined: add the weighted rewards, add the weighted advantages, or standardise that sum too (gdpo)",
    )
    group: int = Field(default=8, ge=2, description="samples per prompt")
    updates: int = Field(default=1, ge=1, description="optimizer steps per collection")
    trained: int = Field(default=3, ge=1, description="losses per sample, each at another time")
    advantage: Convention = Field(default="flow-grpo-group", description="how rewards become advantages")
    advantage_clip: float = Field(default=5.0, gt=0, description="advantages are clipped to +- this")

    def advantages(self, rewards: Sequence[Tensor]) -> Tensor:
        """What the rewards of a collection say about its samples: by default as ``combination``, ``advantage`` and ``advantage_clip`` say.

        Args:
            rewards: where higher is better, float64, (P, k) each: k samples of each of P prompts.

        Returns:
            Float64, (P, k); a prompt whose samples are all 0 teaches nothing.
        """
        found = combined_advantages(rewards, self.weights, self.advantage, self.combination)
        return found.clamp(-self.advantage_clip, self.advantage_clip)

    @property
    def keeps_behaviour(self) -> bool:
        """Whether the weights that sampled a collection are kept until its last step, to sample it again after an interruption."""
        return self.updates > 1 and self.sampled_by is None

    @property
    def together(self) -> int:
        """How many samples of a prompt share a micro-batch at least: `group`, if the loss compares the samples of a prompt."""
        return 1

    @property
    def least_ratio(self) -> float | None:
        """The smallest change of a log ratio that the objective reacts to, such as its clip range; None without a ratio.

        A run whose replay is noisier than a third of it stops.
        """
        return None

    def ratio_scale(self, deviation: float) -> float:
        """By how much the objective multiplies log ratios of a sampling step with this standard deviation; by default not at all."""
        return 1.0

    def captions_together(self, global_batch_size: int) -> int:
        return global_batch_size * self.updates // self.group

    def sampler(self, process: ForwardProcess) -> Sequence[Rule]:
        """The rules of the first collection of seed 0."""
        return self.schedule(process, 0, 0).rules

    @abc.abstractmethod
    def schedule(self, process: ForwardProcess, seed: int, collection: int) -> Schedule:
        """How a collection is sampled, and how many losses each sample has.

        Raises:
            UserError: the model cannot be sampled so.
        """

    @abc.abstractmethod
    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:
        """One loss of each sample of a micro-batch, unreduced; see `Algorithm.step`."""


def refuse_more_steps(trained: int, eligible: int) -> None:
    """Raise a ValueError if more sampling steps are to be trained than there are to choose from."""
    if trained > eligible:
        raise ValueError(f"trained={trained} is more than the {eligible} sampling steps that may be trained; lower it")


def samples_together(algorithm: Algorithm) -> int:
    """How many samples share a micro-batch at least; 1 for algorithms that do not collect samples."""
    return algorithm.together if isinstance(algorithm, OnlineAlgorithm) else 1


class StepwiseAlgorithm(OnlineAlgorithm):
    """An online algorithm that compares the probability of sampling steps then and now.

    ``batch.replay`` repeats the step.  Log the absolute log ratio as ``ratio_error``: it must be 0, up to the replay's noise,
    before the first update from a collection.
    """

    rule: ChosenRule = None
    noise: Strength = None
    trained: int = Field(default=3, ge=1, description="sampling steps that are trained per collection")
    within: int = Field(
        default=5, ge=1, description="train only steps among this many of the first (noisiest) sampling steps"
    )
    same_start: bool = Field(default=False, description="all samples of a prompt start from the same noise")

    @pydantic.model_validator(mode="after")
    def _as_many_steps_as_are_trained(self) -> Self:
        refuse_more_steps(self.trained, len(self.eligible))
        return self

    @property
    def compares_means(self) -> bool:
        """Whether `step` reads ``batch.means``, which takes as much memory as the latents of the trained steps."""
        return False

    def schedule(self, process: ForwardProcess, seed: int, collection: int) -> Schedule:
        """The steps of `kept` are trained, with the rules of `rules`."""
        kept = self.kept(seed, collection)
        means = kept if self.compares_means else ()
        return Schedule(collection, kept, self.rules(process, kept), len(kept), self.same_start, means)

    @property
    def eligible(self) -> Sequence[int]:
        """Numbers of the steps that are trained in some collection, 0 for the first: by default the first ``within``."""
        return range(min(self.within, self.sampling_steps))

    def noisy_rules(self, process: ForwardProcess) -> Mapping[int, Rule]:
        rules = self.rules(process, self.eligible)
        return {number: rules[number] for number in self.eligible}

    def kept(self, seed: int, collection: int) -> list[int]:
        """Numbers of the trained steps of a collection: by default ``trained`` of the ``eligible`` ones, drawn for each."""
        order = permutation(len(self.eligible), seed, "trained steps", collection)[: self.trained].tolist()
        return sorted(self.eligible[place] for place in order)

    def rules(self, process: ForwardProcess, kept: Sequence[int]) -> list[Rule]:
        """The rule of every sampling step, given which steps are trained; the default has noise in all of them.

        Raises:
            UserError: the rule is not defined for the process.
        """
        return [find_rule(self.rule, self.noise, process)] * self.sampling_steps


class ForwardAlgorithm(OnlineAlgorithm):
    """An online algorithm that trains on its samples noised to random times; they are sampled without noise.

    ``batch.noised`` noises them; each of the ``trained`` losses of a sample has another time and noise.
    """

    trained: int = Field(default=3, ge=1, description="losses per sample, each at a random time with other noise")

    def schedule(self, process: ForwardProcess, seed: int, collection: int) -> Schedule:
        """The deterministic sampler."""
        return Schedule(collection, (), [ODE] * self.sampling_steps, self.trained)
