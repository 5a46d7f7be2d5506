"""How many images, and which rows, are processed at once."""

from __future__ import annotations

from collections.abc import Iterator

CHUNK = 32
"""Images made or scored together.  Chunks depend on the list of images alone, so that resuming gives the same bits."""

PIXELS_TOGETHER = 4 << 20
"""Pixels that an autoencoder in float32 takes at once within a few gigabytes."""


def batch_slices(count: int, size: int) -> Iterator[slice]:
    """Slices that cut ``count`` items into batches of at most ``size``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def images_per_chunk(height: int, width: int) -> int:
    """How many pictures of a size are made or encoded at once; fixed by the size alone, so that resuming gives the same bits."""
    return max(1, min(CHUNK, PIXELS_TOGETHER // (height * width)))
