"""Counting floating-point operations; a multiplication and an addition are two."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper

Shape = Sequence[int]


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)
    return flops


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    flops: int = sdpa_backward_flop_count(gradient, query, key, value)
    return flops


# Attention as torch runs it on a CPU, by shapes: torch's own counter has no formula for it and would count 0.
_FORMULAS = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: shape_wrapper(_attention),  # noqa: SLF001
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: shape_wrapper(_attention_backward),  # noqa: SLF001
}


class FlopCounter(TorchDispatchMode):
    """A context manager that counts matrix products, convolutions and attention, the same on every device.

    Its formulas are those of `torch.utils.flop_counter.FlopCounterMode`, which also counts per module: its hooks keep alive what
    checkpointing recomputes, and so would change the memory that is measured at the same time.

    Attributes:
        total: operations so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is None and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


@functools.cache
def _is_composite(func: Any) -> bool:
    """Whether an operation is composed of others; it is dispatched undecomposed in inference mode, where autograd is off."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")  # noqa: SLF001
