"""Expensive values of the rows of data: cached shard by shard, then in one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.core.chunks import batch_slices
from bench.core.files import remove, replace_file, sweep, write_array
from bench.core.locks import exclusive
from bench.core.manifest import is_sealed, seal, unbroken
from bench.core.progress import Progress

SHARD = 64
"""Rows computed and written at a time."""

Kind = TypeVar("Kind", bound=np.generic)
"""Type of the values."""


def cached_rows(path: Path, title: str, count: int, compute: Callable[[slice], NDArray[Kind]]) -> NDArray[Kind]:
    """Values of ``count`` rows, (N, ...), memory-mapped and read-only.

    Args:
        path: the ``.npy`` file that keeps them; used only for this data and ``compute``.  Until it exists, its shards
            are in a folder beside it, from where an interrupted call goes on.  All of them have seals, which are checked.
            One process at a time computes them; others wait, and then read them.
        title: what the progress display calls the work.
        compute: returns the values of some rows, (R, ...).

    Raises:
        UserError: a file is not what it was when it was written.
    """
    shards = path.with_suffix(".shards")
    # A process that was killed after it had written the file has left its shards.
    if shards.exists() or not is_sealed(path):
        with exclusive(path.with_suffix(".lock"), f"computes {path}", wait=True):
            if not is_sealed(path):
                sweep(path.parent, f"{path.name}*")
                _compute(path, shards, title, count, compute)
            remove(shards)
    values: NDArray[Kind] = np.load(unbroken(path), mmap_mode="r")
    return values


def _compute(path: Path, shards: Path, title: str, count: int, compute: Callable[[slice], NDArray[Any]]) -> None:
    """Compute what no shard holds yet, and join the shards in one file."""
    sweep(shards)
    parts = []
    with Progress(title, total=count) as progress:
        for piece in batch_slices(count, SHARD):
            part = shards / f"{piece.start:08d}.npy"
            parts.append(part)
            if is_sealed(part):
                progress.found(piece.stop - piece.start)
                continue
            write_array(part, compute(piece))
            seal(part)
            progress.advance(piece.stop - piece.start)
    replace_file(path, lambda partial: _join(partial, parts, count))
    seal(path)


def _join(path: Path, parts: Sequence[Path], count: int) -> None:
    first: NDArray[Any] = np.load(unbroken(parts[0]))
    header = {"descr": first.dtype.str, "fortran_order": False, "shape": (count, *first.shape[1:])}
    # Written, not mapped: a full disk then raises an error instead of SIGBUS, and one part at a time is in memory.
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(np.load(unbroken(part)).tobytes())
