"""Counting floating-point operations; a multiplication and an addition are two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Shape = Sequence[int]


def flop_counter() -> FlopCounterMode:
    """A context manager that counts matrix products, convolutions and attention, the same on every device."""
    return FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)
    return flops


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    flops: int = sdpa_backward_flop_count(gradient, query, key, value)
    return flops


CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,  # noqa: SLF001
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,  # noqa: SLF001
}
"""Attention as torch runs it on a CPU, by shapes: torch's own counter has no formula for it and would count nothing."""
