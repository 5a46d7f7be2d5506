"""Rewards: counted, cached, and refused in a sentence where nothing can be learnt from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.core.errors import UserError
from bench.records.scores import MetricInfo
from bench.rollouts.rewards import Rewards
from bench.scoring.metric import Metric


class Computed(Metric):
    """A metric that computes each score from the mean of a picture and the number of the call."""

    info: ClassVar[MetricInfo] = MetricInfo("computed", "any", "none", "here", "none")

    def __init__(self, formula: Callable[[float, int], float]) -> None:
        self.formula, self.calls, self.pictures = formula, 0, 0

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        return {}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        self.calls, self.pictures = self.calls + 1, self.pictures + len(images)
        return torch.tensor([self.formula(float(np.asarray(image).mean()), self.calls) for image in images])


def pictures(count: int) -> NDArray[np.uint8]:
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), dtype=np.uint8)


def rewards_by(formula: Callable[[float, int], float]) -> Rewards:
    metric = Computed(formula)
    return Rewards({"computed": lambda: metric})


def test_every_picture_is_scored_once_for_its_prompt_and_counted_whenever_it_is_asked_for() -> None:
    metric = Computed(lambda mean, _: mean)
    rewards = Rewards({"computed": lambda: metric})
    assert rewards.score(pictures(3), ["a", "a", "b"])["computed"].tolist() == [0, 1, 2]
    assert rewards.calls == 3
    again = rewards.score(pictures(3)[::-1], ["b", "a", "a"])["computed"]
    assert again.tolist() == [2, 1, 0]
    assert (rewards.calls, metric.pictures) == (6, 3)
    rewards.score(pictures(3), ["b", "a", "b"])
    assert (rewards.calls, metric.pictures) == (9, 4)
    same = rewards_by(lambda mean, _: mean)
    assert same.score(np.concatenate([pictures(1)] * 4), ["a"] * 4)["computed"].tolist() == [0] * 4
    assert same.calls == 4


def test_several_rewards_are_counted_each() -> None:
    one, other = Computed(lambda mean, _: mean), Computed(lambda mean, _: -mean)
    rewards = Rewards({"one": lambda: one, "other": lambda: other})
    found = rewards.score(pictures(2), ["a", "b"])
    assert {name: values.tolist() for name, values in found.items()} == {"one": [0, 1], "other": [0, -1]}
    assert rewards.calls == 4


def test_a_score_that_is_not_finite_stops() -> None:
    with pytest.raises(
        UserError, match="'computed' returned the score nan, which is not finite as float32, for image 1 of 2"
    ):
        rewards_by(lambda mean, _: math.nan if mean else 0.0).score(pictures(2), ["a", "b"])


def test_a_reward_that_is_constant_stops() -> None:
    rewards = rewards_by(lambda mean, _: 0.5)
    with pytest.raises(UserError, match=r"'computed' is 0\.5 for all 2 images .* choose another reward"):
        rewards.check_spread(rewards.score(pictures(2), ["a", "b"]), 2)
    useful = rewards_by(lambda mean, _: mean)
    useful.check_spread(useful.score(pictures(2), ["a", "b"]), 2)


def test_a_reward_that_depends_on_the_prompt_alone_stops_where_samples_of_a_prompt_are_compared() -> None:
    rewards = rewards_by(lambda mean, _: mean)
    by_prompt = {"computed": torch.tensor([1.0, 1.0, 2.0, 2.0])}
    with pytest.raises(UserError, match=r"the same for all 2 images of a prompt, for each of 2 prompts"):
        rewards.check_spread(by_prompt, 2)
    rewards.check_spread(by_prompt, 4)  # prompts are compared with each other
    rewards.check_spread({"computed": torch.tensor([1.0, 1.0, 2.0, 3.0])}, 2)


def test_a_reward_that_changes_its_mind_stops() -> None:
    with pytest.raises(UserError, match=r"'computed' is not deterministic: .* 1 and then 2; .* fix the metric"):
        rewards_by(lambda mean, call: float(call)).check_determinism(pictures(2), ["a", "b"])
    steady = rewards_by(lambda mean, _: mean)
    steady.check_determinism(pictures(2), ["a", "b"])
    assert steady.calls == 4
