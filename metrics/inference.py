"""How every scorer computes: no gradients, full float32 precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

BATCH = 32
"""Pictures that go through a tower at once."""


@contextlib.contextmanager
def exact_inference(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast and no TF32 within, whatever the caller has set; as it was afterwards.

    On CUDA, convolutions use TF32 unless told otherwise, which keeps ten bits of the
    mantissa.
    """
    cudnn: Any = torch.backends.cudnn
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
