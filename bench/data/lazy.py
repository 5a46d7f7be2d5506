"""Sequences that are read from disk or from Arrow on access, so data may be larger than memory."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.data.sources.base import Source

PIECE = 4096
"""Texts converted to Python objects at a time."""


class StoredTexts(Sequence[str]):
    """Strings of an Arrow column."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column: Any = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [str(text) for text in self._column[index].to_pylist()]
        return str(self._column[int(index)].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), PIECE):
            yield from self[start : start + PIECE]


class StoredImages(Sequence[tuple[bytes, ...]]):
    """Encoded images of some rows of a source; reading them in order is cheap.

    Args:
        rows: row numbers in the source, (N,).
    """

    def __init__(self, source: Source, rows: NDArray[np.int64]) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[bytes, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[bytes, ...] | list[tuple[bytes, ...]]:
        if isinstance(index, slice):
            return [self._source.images(row) for row in self._rows[index].tolist()]
        return self._source.images(int(self._rows[index]))


class PickedImages(Sequence[tuple[bytes, ...]]):
    """Some encoded images of some rows; consecutive items of the same row read it once.

    Args:
        encoded: all images of all rows.
        rows: row numbers, (M,).
        images: which images of each, (M, K).
    """

    def __init__(
        self, encoded: Sequence[tuple[bytes, ...]], rows: NDArray[np.int64], images: NDArray[np.int64]
    ) -> None:
        self._rows, self._images = rows, images
        self._read = functools.lru_cache(maxsize=1)(encoded.__getitem__)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[bytes, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[bytes, ...] | list[tuple[bytes, ...]]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        row = self._read(int(self._rows[index]))
        return tuple(row[image] for image in self._images[index].tolist())
