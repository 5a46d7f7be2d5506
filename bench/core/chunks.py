"""How many images, and which rows, are processed at once."""

from __future__ import annotations

from collections.abc import Iterator

CHUNK = 32
"""Images generated or scored together.  Chunks depend only on the list of images, so that a resumed run has the same bits."""

PIXELS_TOGETHER = 4 << 20
"""Pixels per call of an autoencoder in float32, so that it needs only a few gigabytes."""


def batch_slices(count: int, size: int) -> Iterator[slice]:
    """Slices that cut ``count`` items into batches of at most ``size``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def images_per_chunk(height: int, width: int) -> int:
    """How many images of a size are decoded or encoded at once; depends only on the size, so a resumed run has the same bits."""
    return max(1, min(CHUNK, PIXELS_TOGETHER // (height * width)))
