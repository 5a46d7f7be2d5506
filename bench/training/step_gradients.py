"""Gradients by sampling step, whose norms tell which steps drive an update."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.training.distributed.strategy import ParallelStrategy
from bench.training.rollout_batch import RolloutBatch
from bench.training.step_pairs import StepPairBatch


class StepGradients:
    """Gathers the gradient of a global batch, apart for each sampling step that its losses are about.

    Each step takes as much memory as the gradients of all trained weights: little for adapters, too much for a whole network.

    Args:
        parameters: the trained weights.
        apart: whether gradients are kept apart; if not, they add up in the parameters as usual.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, apart: bool) -> None:
        self._parameters, self._apart = parameters, apart
        self._parts: dict[int, list[Tensor]] = {}

    def after_backward(self, batch: Any) -> None:
        """Put away the gradients of a micro-batch, if its losses are about one sampling step."""
        number = batch.sampling_step if isinstance(batch, RolloutBatch | StepPairBatch) else None
        if number is None or not self._apart:
            return
        found = [torch.zeros_like(each) if each.grad is None else each.grad for each in self._parameters]
        self._add(self._parts.setdefault(number, []), found)
        for parameter in self._parameters:
            parameter.grad = None

    @property
    def tensors(self) -> list[Tensor]:
        """All gradients that are in memory."""
        apart = itertools.chain.from_iterable(self._parts.values())
        return [*apart, *(each.grad for each in self._parameters if each.grad is not None)]

    def sum(self, strategy: ParallelStrategy) -> dict[str, float]:
        """Leave the gradient of the global batch, summed over the processes, in the parameters; every process must call it.

        Returns:
            Norms by number of the sampling step, 0 for the first; the gradient is the sum of these parts.  Empty if there are none.
        """
        if not self._parts:
            strategy.sum_gradients(self._parameters)
            return {}
        total: list[Tensor] = []
        norms = {}
        for number in sorted(self._parts):
            self._put(self._parts.pop(number))
            strategy.sum_gradients(self._parameters)
            part = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
            norms[str(number)] = strategy.gather_full(torch.nn.utils.get_total_norm(part)).item()
            self._add(total, part)
        self._put(total)
        return norms

    def _put(self, gradients: Sequence[Tensor]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient

    @staticmethod
    def _add(total: list[Tensor], more: Sequence[Tensor]) -> None:
        if not total:
            total.extend(more)
            return
        for gradient, other in zip(total, more, strict=True):
            gradient.add_(other)
