"""Linear layers through oneDNN, for processors on which PyTorch's default library is slow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

PROCESSORS = Path("/proc/cpuinfo")


class OneDNNLinear(TorchFunctionMode):
    """Inside, oneDNN computes `torch.nn.functional.linear` of float32 tensors on the CPU; without gradients.

    Everything else is unchanged.  The sums are taken in a different order: for values of size 1, results differ by about 1e-6.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """See `TorchFunctionMode`."""
        if func is linear and not kwargs and suits(*args):
            return with_onednn(*args)
        return func(*args, **(kwargs or {}))


def suits(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether oneDNN accepts these arguments of `torch.nn.functional.linear` unchanged."""
    parameters = [weight] if bias is None else [weight, bias]
    return (
        all(each.dtype == torch.float32 and each.device.type == "cpu" for each in (values, *parameters))
        # The operator reads a strided bias as if it were contiguous, and refuses empty tensors.
        and all(each.is_contiguous() for each in parameters)
        and values.numel() > 0
        and weight.numel() > 0
    )


def with_onednn(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``values @ weight.T + bias``: float32 of shape (..., K), (N, K) and (N,) to (..., N)."""
    # The public interface, torch.utils.mkldnn, uses the deprecated TorchScript and needs a copy of the weights.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")  # noqa: SLF001
    return product


@functools.cache
def mkl_is_slow(processors: Path = PROCESSORS) -> bool:
    """Whether PyTorch uses MKL for linear layers on an AMD processor and oneDNN is available instead.

    MKL selects its code by the processor's vendor.  On one core of an EPYC with AVX-512, it computes the layers of ViT-H
    at 97 GFLOP/s, oneDNN at 210.  Processors of other vendors are left alone.

    Args:
        processors: Linux's description of the processors.
    """
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    operator = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return libraries and operator and processors.exists() and "AuthenticAMD" in processors.read_text(encoding="utf-8")
