"""Where networks run on torch's fake tensors, which have shapes and gradients and no values, and what they do there is counted."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.flops import FlopCounter
from bench.planning.live import LiveBytes

PROMOTED = (nn.LayerNorm, nn.GroupNorm)
"""What torch's autocast computes in float32 on CUDA, and not on a CPU; the parts of it that our networks spend memory on."""


class Stage:
    """Counts memory and operations of networks without values.

    Fake tensors pretend to be on a CPU: a torch that was built for CPUs knows no others, and its attention holds as little as
    CUDA's does.  What CUDA's autocast does otherwise is done here too.

    Args:
        device: where the run would be.
        precision: its arithmetic.

    Attributes:
        live: memory.
        flops: operations by what they were counted as.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.live = LiveBytes()
        self.flops: Counter[str] = Counter()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._promotes = device.type == "cuda" and precision == "bf16"
        self._seen: dict[tuple[str, int], tuple[torch.dtype, int, int]] = {}

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Nothing in the block has values."""
        with self._fake, self.live:
            yield

    def place(self, *networks: nn.Module) -> None:
        """Give networks of the meta device tensors of this stage, in place; they count from now on."""
        placed: dict[int, Tensor] = {}

        def moved(value: Tensor) -> Tensor:
            if id(value) not in placed:
                placed[id(value)] = torch.empty_like(value, device="cpu", requires_grad=value.requires_grad)
            return placed[id(value)]

        with self.entered():
            for module in (module for network in networks for module in network.modules()):
                for name, weight in module.named_parameters(recurse=False):
                    setattr(module, name, nn.Parameter(moved(weight), weight.requires_grad))
                for name, buffer in module.named_buffers(recurse=False):
                    setattr(module, name, moved(buffer))
                if self._promotes and isinstance(module, PROMOTED):
                    module.register_forward_pre_hook(_promoted)

    @contextlib.contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """The same, and its operations count as ``name``."""
        with FlopCounter() as counter, self.entered():
            yield
        self.flops[name] += counter.total

    def once(self, name: str, rows: int, run: Callable[[], Tensor]) -> torch.dtype:
        """Run a forward without gradient, or count again one like it; gives the dtype of its result.

        Args:
            name: what its operations count as.
            rows: images in it.
        """
        if (name, rows) not in self._seen:
            before, flops, peak = self.live.now, self.flops[name], self.live.peak
            self.live.peak = before
            with self.counted(name):
                dtype = run().dtype
            self._seen[name, rows] = dtype, self.live.peak - before, self.flops[name] - flops
            self.live.peak = max(self.live.peak, peak)
            return dtype
        dtype, memory, flops = self._seen[name, rows]
        self.live.allow(memory)
        self.flops[name] += flops
        return dtype

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


class _Graph:
    """A prediction without values, until its backward."""

    def __init__(self, stage: Stage, name: str, prediction: Tensor) -> None:
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
