"""The device of a command, and exact float32 arithmetic on it."""

from __future__ import annotations

import torch


def full_precision() -> None:
    """Compute convolutions in float32 as exactly as on a CPU: by default CUDA's keep ten bits of the mantissa (TF32)."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]


def this_device() -> torch.device:
    """The device on which a command of one process computes: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
