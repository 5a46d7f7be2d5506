"""Advantages by named convention: the published ones are not interchangeable, and the sign of a sample can differ between them.

Rewards are float64, (P, k): k samples of each of P prompts.  So are advantages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

Convention = Literal["flow-grpo", "flow-grpo-group", "verl-omni", "flow-factory", "dance", "gardo", "ddpo"]
"""Names of what `CONVENTIONS` computes."""


def _centred(rewards: Tensor) -> Tensor:
    # Exactly 0 where all are equal, whose mean may be another number by rounding.
    spread = (rewards != rewards[:, :1]).any(1, keepdim=True)
    return (rewards - rewards.mean(1, keepdim=True)) * spread


def _group_std(rewards: Tensor, *, sample: bool) -> Tensor:
    return rewards.std(1, correction=int(sample), keepdim=True)


def _flow_factory(rewards: Tensor) -> Tensor:
    return _centred(rewards) / _group_std(rewards, sample=False).clamp(min=1e-6)


CONVENTIONS: Mapping[Convention, Callable[[Tensor], Tensor]] = {
    # Group mean; population deviation of all rewards: flow_grpo and DiffusionNFT with global_std.
    "flow-grpo": lambda rewards: _centred(rewards) / (rewards.std(correction=0) + 1e-4),
    # The same without global_std.
    "flow-grpo-group": lambda rewards: _centred(rewards) / (_group_std(rewards, sample=False) + 1e-4),
    # Group mean; sample deviation of all rewards.
    "verl-omni": lambda rewards: _centred(rewards) / (rewards.std(correction=1) + 1e-4),
    # Group mean; the group's population deviation, with a floor.
    "flow-factory": _flow_factory,
    # Group mean; the group's sample deviation: DanceGRPO, MixGRPO, BranchGRPO.
    "dance": lambda rewards: _centred(rewards) / (_group_std(rewards, sample=True) + 1e-8),
    # Group mean, unscaled.
    "gardo": _centred,
    # Mean and population deviation of all rewards, without groups: ddpo-pytorch without its per-prompt statistics.
    "ddpo": lambda rewards: (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-8),
}
"""What each repository computes, by name."""

ACROSS_PROMPTS: frozenset[Convention] = frozenset({"ddpo"})
"""Conventions by which samples of different prompts are compared."""

Combination = Literal["rewards", "advantages", "gdpo"]


def advantages(rewards: Tensor, convention: Convention) -> Tensor:
    """Advantages of one reward, (P, k)."""
    return CONVENTIONS[convention](rewards)


def combined_advantages(
    rewards: Sequence[Tensor], weights: Sequence[float], convention: Convention, combination: Combination
) -> Tensor:
    """Advantages of several rewards, (P, k).

    Args:
        rewards: (P, k) each.
        weights: one per reward.
        convention: how one reward becomes advantages.
        combination: ``rewards`` adds the weighted rewards first, ``advantages`` adds the weighted advantages (MixGRPO's default), and
            ``gdpo`` also standardises that sum over the batch (Flow-Factory); where prompts are centred each by itself, one whose samples
            are all equal stays at exactly 0.
    """
    if combination == "rewards":
        return advantages(_weighted(rewards, weights), convention)
    added = _weighted([advantages(reward, convention) for reward in rewards], weights)
    if combination != "gdpo":
        return added
    standardised = advantages(added, "ddpo")
    return standardised if convention in ACROSS_PROMPTS else standardised * (added != 0).any(1, keepdim=True)


def _weighted(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum(0)
