"""Where networks run without values, and what they do there is counted."""

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
"""What torch's autocast computes in float32 on CUDA, and not on a CPU; the parts of it that our networks spend memory on."""


class Tracer:
    """Counts memory and operations of networks without values.

    They run as on a CPU: a torch that was built for CPUs knows nothing else, and its attention holds as little as CUDA's does.  What CUDA's autocast does otherwise is done here too.

    Args:
        device: where the run would be.
        precision: its arithmetic.

    Attributes:
        meter: memory, and all operations.
        flops: operations by what they were counted as.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.meter = MemoryTracker()
        self.flops: Counter[str] = Counter()
        self._promotes = device.type == "cuda" and precision == "bf16"
        self._seen: dict[str, _Forward] = {}

    def place(self, *networks: nn.Module) -> None:
        """Give networks of the meta device weights without values, in place; they count from now on."""
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
        """Give blank weights gradients, as an earlier backward would."""
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        self.meter.keep(weight.grad for weight in weights if weight.grad is not None)

    @contextlib.contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """What `meter` counts in the block are the operations of ``name``."""
        before = self.meter.total
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")  # how fast a norm is on a CPU
            yield
        self.flops[name] += self.meter.total - before

    def once(self, name: str, rows: int, run: Callable[[], Tensor]) -> torch.dtype:
        """Run a forward without gradient, or count again a share of one like it that was no smaller; gives its result's dtype.

        Args:
            name: what its operations count as.
            rows: images in it.
        """
        seen = self._seen.get(name)
        if seen is None or seen.rows < rows:
            before, flops, peak = self.meter.now, self.flops[name], self.meter.peak
            self.meter.peak = before
            with self.counted(name):
                dtype = run().dtype
            self._seen[name] = _Forward(rows, dtype, self.meter.peak - before, self.flops[name] - flops)
            self.meter.peak = max(self.meter.peak, peak)
            return dtype
        self.meter.allow(seen.memory * rows // seen.rows)
        self.flops[name] += seen.flops * rows // seen.rows
        return seen.dtype

    def graph(self, forward: str, backward: str, run: Callable[[], Tensor], anchor: Tensor) -> Tensor:
        """Zeros for what ``run`` predicts, whose backward runs the prediction's.

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
    """What a forward without gradient was seen to cost."""

    rows: int
    dtype: torch.dtype
    memory: int
    flops: int


class _Graph:
    """A prediction without values, until its backward."""

    def __init__(self, stage: Tracer, name: str, prediction: Tensor) -> None:
        self._stage, self._name, self._predictions = stage, name, [prediction]

    def zeros(self) -> Tensor:
        (prediction,) = self._predictions
        return torch.zeros(tuple(prediction.shape), dtype=prediction.dtype)

    def backward(self) -> None:
        prediction = self._predictions.pop()
        with self._stage.counted(self._name):
            prediction.backward(torch.ones_like(prediction))


class _Bridge(torch.autograd.Function):
    """From the graph of real tensors to one of tensors without values."""

    @staticmethod
    def forward(ctx: Any, _: Tensor, graph: _Graph) -> Tensor:
        ctx.graph = graph
        return graph.zeros()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.graph.backward()
        return gradient.new_zeros(()), None


def _promoted(_: nn.Module, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The input of a layer in float32; a hook, since function modes do not hold where backward computes a block again."""
    return tuple(value.float() for value in values)
