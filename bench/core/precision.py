"""The device of a command, and exact float32 arithmetic on it."""

from __future__ import annotations

import torch


def full_precision() -> None:
    """Compute in float32 as exactly as on a CPU: on CUDA, TF32 keeps ten bits of the mantissa.

    Convolutions use it by default, and matrix products where the environment says so, as in NVIDIA's containers
    (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE).
    """
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"


def this_device() -> torch.device:
    """The device on which a command of one process computes: the GPU if there is one; from now on in `full_precision`."""
    full_precision()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
