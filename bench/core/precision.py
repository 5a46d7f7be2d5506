"""Exact float32 arithmetic."""

from __future__ import annotations

import torch


def full_precision() -> None:
    """Compute convolutions in float32 as exactly as on a CPU: by default CUDA's keep ten bits of the mantissa (TF32)."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
