"""Gradients by sampling step: how large is the part of the gradient that comes from each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.training.distributed.strategy import ParallelStrategy


class StepGradients:
    """Accumulates the gradient of a global batch separately for each sampling step that its losses are about.

    This takes the memory of all gradients once for each of these steps.  Every process must have losses about the same steps.

    Args:
        parameters: the trained weights.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._parts: dict[int, list[Tensor | None]] = {}

    def backward(self, loss: Tensor, number: int) -> None:
        """Add the gradient of a loss, a scalar, to the part of the sampling step with this number."""
        self._put(self._parts.get(number, [None] * len(self._parameters)))
        loss.backward()
        self._parts[number] = [parameter.grad for parameter in self._parameters]
        self._put([None] * len(self._parameters))

    @property
    def tensors(self) -> list[Tensor]:
        """All gradients that are in memory."""
        return [gradient for part in self._parts.values() for gradient in part if gradient is not None]

    def sum(self, strategy: ParallelStrategy) -> dict[str, float]:
        """Leave the gradient of the global batch, summed over the processes, in the parameters; every process must call it.

        Returns:
            The norm of each part, before clipping, by number of the sampling step, 0 for the first; the gradient is the sum of the parts.
        """
        total: list[Tensor | None] = [None] * len(self._parameters)
        norms = {}
        for number in sorted(self._parts):
            self._put(self._parts.pop(number))
            strategy.sum_gradients(self._parameters)
            part = [parameter.grad for parameter in self._parameters]
            norm = torch.nn.utils.get_total_norm([gradient for gradient in part if gradient is not None])
            norms[str(number)] = strategy.gather_full(norm).item()
            total = [_added(one, other) for one, other in zip(total, part, strict=True)]
        self._put(total)
        return norms

    def _put(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient


def _added(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """The sum, in the memory of ``total``; None has no gradient."""
    if total is None or more is None:
        return more if total is None else total
    return total.add_(more)
