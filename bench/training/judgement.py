"""What the rewards of a collection say about its samples: their advantages, and what is logged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from bench.core.randomness import permutation
from bench.rollouts.advantages import ACROSS_PROMPTS
from bench.training.online import OnlineAlgorithm


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What is known about all samples of a collection.

    Attributes:
        advantages: float32, (N,).
        record: what the log says: mean and deviation of the weighted sum of the rewards, the mean of each, and the share of groups
            whose samples all have an advantage of 0, from which nothing is learnt.
    """

    advantages: Tensor
    record: Mapping[str, float]


def samples_compared(algorithm: OnlineAlgorithm, size: int) -> int:
    """How many samples, one after another, of a collection of a size are compared with each other: those of a prompt, or all."""
    return size if algorithm.advantage in ACROSS_PROMPTS else algorithm.group


def placebo_order(algorithm: OnlineAlgorithm, size: int, seed: int, number: int) -> Tensor:
    """From which of the samples that it is compared with each sample of a placebo's collection takes its scores, int64, (size,)."""
    if algorithm.advantage in ACROSS_PROMPTS:
        return permutation(size, seed, "shuffled scores", number)
    group = algorithm.group
    prompts = range(size // group)
    orders = [permutation(group, seed, "shuffled scores", number, prompt) for prompt in prompts]
    return torch.cat([prompt * group + order for prompt, order in zip(prompts, orders, strict=True)])


def judge(
    algorithm: OnlineAlgorithm, scores: Mapping[str, Tensor], signs: Mapping[str, int], order: Tensor | None
) -> Judgement:
    """Turn raw scores into advantages.

    Args:
        algorithm: says how.
        scores: of all samples, by metric, float64, (N,) each; N is prompts times samples, prompt by prompt.
        signs: by metric: 1, or -1 if lower is better.
        order: of a placebo, from which sample each sample takes its scores, int64, (N,); None for its own.
    """
    given = scores if order is None else {name: values[order] for name, values in scores.items()}
    raw = {name: values.reshape(-1, algorithm.group) for name, values in given.items()}
    rewards = [signs[name] * values for name, values in raw.items()]
    weights, found = algorithm.weights, algorithm.advantages(rewards)
    total = torch.stack([weight * reward for weight, reward in zip(weights, rewards, strict=True)]).sum(0)
    record = {
        "reward": total.mean().item(),
        "reward_std": total.std(correction=0).item(),
        **{f"reward_{name}": values.mean().item() for name, values in raw.items()},
        "groups_without_spread": (found == 0).all(1).double().mean().item(),
    }
    return Judgement(found.flatten().float(), record)
