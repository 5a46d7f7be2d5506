"""What the rewards of a collection say about its samples: their advantages, and what is logged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

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
