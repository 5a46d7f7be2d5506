"""How every scorer computes: no gradients, full float32 precision, pictures prepared while the network is busy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bench import batch_slices, prefetched
from metrics.onednn import OneDNNLinear, mkl_is_slow
from metrics.preprocessing import Preprocessing

BATCH = 8
"""Pictures that go through a tower at once: a quarter of `bench.core.chunks.CHUNK`, so that most are prepared while the tower works."""


@contextlib.contextmanager
def exact_inference(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast and no TF32 within, whatever the caller has set; as it was afterwards.

    On CUDA, convolutions use TF32 unless told otherwise, which keeps ten bits of the
    mantissa; on a CPU with AMX, products use bf16 where the caller allows it.
    """
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        linear = OneDNNLinear() if device.type == "cpu" and mkl_is_slow() else contextlib.nullcontext()
        with torch.inference_mode(), torch.autocast(device.type, enabled=False), linear:
            yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def preprocessed_batches(
    preprocessing: Preprocessing, images: Sequence[Image.Image], device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """Batches of `BATCH`: which images, and their pixels as float32 of shape (N, 3, size, size) on ``device``.

    The next batch is prepared in a thread while the caller works on one.
    """
    batches = prefetched(lambda piece: preprocessing.batch(images[piece]), batch_slices(len(images), BATCH))
    for piece, pixels in batches:
        yield piece, pixels.to(device)
