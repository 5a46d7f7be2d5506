"""Guidance between two predictions, and the weights that make the negative one.

Diffusion-NPO (arXiv 2505.11245) and Self-NPO (arXiv 2505.11777) train weights for the negative slot of guidance alone.  The same
two slots serve autoguidance, where the negative weights are simply worse ones.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from bench.models.family import Condition

ALPHA = 1.0
BETA = 1.0
"""Both offsets in full, as in all released commands of Diffusion-NPO."""


@dataclasses.dataclass(frozen=True, slots=True)
class Networks:
    """The denoisers in the two slots of guidance.

    Attributes:
        positive: conditioned on the prompt.
        negative: conditioned on the negative prompt; usually the same network.
    """

    positive: nn.Module
    negative: nn.Module

    @classmethod
    def single(cls, network: nn.Module) -> Self:
        """One network in both slots, which is plain classifier-free guidance."""
        return cls(network, network)

    def branches(self, condition: Condition, negative: Condition) -> list[tuple[nn.Module, Condition]]:
        """Conditioning of each network, negative slot first: one forward pass of both slots where one network serves both."""
        if self.positive is self.negative:
            both = {name: torch.cat([negative[name], value]) for name, value in condition.items()}
            return [(self.positive, both)]
        return [(self.negative, negative), (self.positive, condition)]


def guide(negative: Tensor, positive: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598): ``negative + scale * (positive - negative)``.

    Both predictions and the result are (B, ...) of one dtype; a scale of 1 is the positive prediction alone.
    """
    return negative + scale * (positive - negative)


def merge(
    base: Mapping[str, Tensor],
    positive: Mapping[str, Tensor],
    negative: Mapping[str, Tensor],
    *,
    alpha: float,
    beta: float,
) -> dict[str, Tensor]:
    """Weights for the negative slot: ``base + alpha * (positive - base) + beta * (negative - base)``.

    Two networks that were trained separately also differ in what both learned, and guidance amplifies that difference; alpha adds
    the positive weights' offset to the negative slot as well.  Written as a weighted sum, so that (1, 0) is exactly the positive
    weights and (0, 1) exactly the negative ones.

    Args:
        base: state of the model that both were trained from; tensors that are not floating-point are taken from here.
        positive: state of the positive weights, of the same names and shapes.
        negative: state of the weights that were trained as negative, of the same names and shapes.
        alpha: share of the positive offset, in [0, 1].
        beta: share of the negative offset, in [0, 1].
    """
    return {
        name: alpha * positive[name] + (1 - alpha - beta) * value + beta * negative[name]
        if value.is_floating_point()
        else value
        for name, value in base.items()
    }


def fused(network: Any) -> nn.Module:
    """Merge the network's adapters, if it has any, into its weights and remove them, in place; its state dict is then complete."""
    if getattr(network, "peft_config", None):
        network.fuse_lora()
        network.unload_lora()
    return network  # type: ignore[no-any-return]


def pair(base: nn.Module, positive: nn.Module, negative: nn.Module, *, alpha: float, beta: float) -> Networks:
    """The networks of negative guidance; adapters are fused and ``negative`` receives the merged weights, both in place."""
    positive, negative = fused(positive), fused(copy.deepcopy(negative) if negative is base else negative)
    # The merged weights are then the positive ones: keep the bits of sampling without a negative.
    if (alpha, beta) == (1, 0):
        return Networks.single(positive)
    states = (network.state_dict() for network in (base, positive, negative))
    negative.load_state_dict(merge(*states, alpha=alpha, beta=beta))
    return Networks(positive, negative)
