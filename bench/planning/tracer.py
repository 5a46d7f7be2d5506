"""Runs networks without values, and counts their memory and operations."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.planning.memory_tracker import MemoryTracker
from bench.planning.shape_tensor import ShapeTensor

PROMOTED = (nn.LayerNorm, nn.GroupNorm)
"""Layers that torch's autocast runs in float32 on CUDA but not on a CPU; only those on which these networks spend memory."""


class Tracer:
    """Counts memory and operations of networks without values.

    They run as on a CPU, because a CPU build of torch supports nothing else, and because its attention takes as little memory as
    CUDA's.  Where CUDA's autocast differs, this class reproduces it.

    Args:
        device: where the run would take place.
        precision: the run's precision, ``fp32`` or ``bf16``.

    Attributes:
        meter: tracks memory, and counts all operations.
        flops: operations by what they were counted as.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.meter = MemoryTracker()
        self.flops: Counter[str] = Counter()
        self._promotes = device.type == "cuda" and precision == "bf16"
        self._seen: dict[str, _Forward] = {}

    def place(self, *networks: nn.Module) -> None:
        """Replace the weights of networks on the meta device by `ShapeTensor`s, in place; they count as memory from now on."""
        placed: dict[int, Tensor] = {}

        def moved(value: Tensor) -> Tensor:
            return placed.setdefault(id(value), ShapeTensor(value.detach()))

        for module in (module for network in networks for module in network.modules()):
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(moved(weight), weight.requires_grad))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, moved(buffer))
            if self._promotes and isinstance(module, PROMOTED):
                module.register_forward_pre_hook(_promoted)
        self.meter.keep(placed.values())

    def give_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Give weights without values gradients, as an earlier backward would."""
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        self.meter.keep(weight.grad for weight in weights if weight.grad is not None)

    @contextlib.contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """Attribute the operations that `meter` counts in the block to ``name``."""
        before = self.meter.total
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Mismatch dtype between input and weight"
            )  # about a norm's speed on a CPU
            yield
        self.flops[name] += self.meter.total - before

    def once(self, name: str, rows: int, run: Callable[[], Tensor]) -> torch.dtype:
        """Run a forward without gradient, or count one seen before, scaled to ``rows``; returns the dtype of its result.

        Args:
            name: what its operations count as.
            rows: number of images in it.
        """
        # Without a graph nothing of a forward stays alive, and its operations and working memory grow linearly with its rows.
        # So a forward need not run again if one of at least as many rows has been seen: rows / seen.rows of that one is added.
        seen = self._seen.get(name)
        if seen is None or seen.rows < rows:
            before, flops, peak = self.meter.now, self.flops[name], self.meter.peak
            self.meter.peak = before  # so that the peak seen during this forward is its own, not an earlier one
            with self.counted(name):
                dtype = run().dtype
            self._seen[name] = _Forward(rows, dtype, self.meter.peak - before, self.flops[name] - flops)
            self.meter.peak = max(self.meter.peak, peak)
            return dtype
        self.meter.raise_peak(seen.memory * rows // seen.rows)
        self.flops[name] += seen.flops * rows // seen.rows
        return seen.dtype

    def graph(self, forward: str, backward: str, run: Callable[[], Tensor], anchor: Tensor) -> Tensor:
        """Real zeros in place of what ``run`` predicts; their backward runs the backward of the prediction.

        Args:
            forward: what the forward's operations count as.
            backward: what the backward's count as.
            anchor: any real tensor that requires a gradient.
        """
        with self.counted(forward):
            prediction = run()
        zeros: Tensor = _Bridge.apply(anchor, _Graph(self, backward, prediction))  # type: ignore[no-untyped-call]
        return zeros


@dataclasses.dataclass(frozen=True, slots=True)
class _Forward:
    """The cost of a forward without gradient that has been run."""

    rows: int
    dtype: torch.dtype
    memory: int
    flops: int


class _Graph:
    """A prediction without values, until its backward."""

    def __init__(self, tracer: Tracer, name: str, prediction: Tensor) -> None:
        self._tracer, self._name, self._predictions = tracer, name, [prediction]

    def zeros(self) -> Tensor:
        (prediction,) = self._predictions
        return torch.zeros(tuple(prediction.shape), dtype=prediction.dtype)

    def backward(self) -> None:
        prediction = self._predictions.pop()
        with self._tracer.counted(self._name):
            prediction.backward(torch.ones_like(prediction))


class _Bridge(torch.autograd.Function):
    """Connects the autograd graph of real tensors to that of tensors without values."""

    @staticmethod
    def forward(ctx: Any, _: Tensor, graph: _Graph) -> Tensor:
        ctx.graph = graph
        return graph.zeros()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.graph.backward()
        return gradient.new_zeros(()), None


def _promoted(_: nn.Module, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The input of a layer in float32.  A hook, since function modes are not active when the backward recomputes a block."""
    return tuple(value.float() for value in values)
