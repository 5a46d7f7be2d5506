"""How every scorer computes: full float32 precision, no gradients unless they are wanted, images preprocessed while the network is busy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence, Sized
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bench import batch_slices, prefetched
from metrics.onednn import OneDNNLinear, mkl_is_slow
from metrics.preprocessing import Preprocessing

BATCH = 8
"""Images per forward pass: a quarter of `bench.core.chunks.CHUNK`, so most are preprocessed while the tower computes."""


@contextlib.contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """No autocast or TF32 inside, whatever the caller has set; restores the caller's settings afterwards.

    By default, convolutions on CUDA use TF32, which keeps ten bits of the mantissa; on a CPU with AMX, matrix products use
    bf16 if the caller allows it.  A backward outside of the block uses the caller's settings.
    """
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


@contextlib.contextmanager
def exact_inference(device: torch.device) -> Iterator[None]:
    """The same without gradients."""
    linear = OneDNNLinear() if device.type == "cpu" and mkl_is_slow() else contextlib.nullcontext()
    with exact_arithmetic(device), torch.inference_mode(), linear:
        yield


def refuse_other_count(pictures: Sized, prompts: Sized) -> None:
    """Raise a `ValueError` unless there are as many prompts as pictures."""
    if len(pictures) != len(prompts):
        raise ValueError(f"{len(pictures)} images for {len(prompts)} prompts")


def preprocessed_batches(
    preprocessing: Preprocessing, images: Sequence[Image.Image], device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """Batches of `BATCH`: which images, and their pixels as float32 of shape (N, 3, size, size) on ``device``.

    A thread preprocesses the next batch while the caller uses the current one.
    """
    batches = prefetched(lambda piece: preprocessing.batch(images[piece]), batch_slices(len(images), BATCH))
    for piece, pixels in batches:
        yield piece, pixels.to(device)
