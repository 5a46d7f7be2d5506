"""Arrays on disk whose rows are verified one by one as they are read, so that a row of a large file costs no pass over all others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.files import write_array
from bench.core.inputs import regular
from bench.core.manifest import broken, row_digests, seal, unbroken


def write_rows(file: Path, values: NDArray[Any]) -> None:
    """Write an array as ``.npy`` with its seal, which holds a digest of every row too."""
    write_array(file, values)
    seal(file, [_digest(row) for row in values])


class SealedRows:
    """The rows of an array that `write_rows` wrote, memory-mapped.

    Files of older versions have no digests of rows and are verified as a whole.

    Args:
        file: the ``.npy`` file.

    Raises:
        UserError: the file is not what it was when it was written.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._digests = file, row_digests(file)
        if not self._digests:
            unbroken(file)
        try:
            self._values: NDArray[np.float32] = np.load(regular(file), mmap_mode="r")
        except Exception:
            unbroken(file)  # which says so if the file is damaged
            raise
        if self._digests and len(self._values) != len(self._digests):
            raise broken(file)

    def __getitem__(self, row: int) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._values[row]
        if self._digests and _digest(values) != self._digests[row]:
            raise broken(self._file)
        return values


def _digest(row: NDArray[Any]) -> str:
    """SHA-256 of type, shape and values: the first two are in the header of the file, which has no digest of its own."""
    digest = hashlib.sha256(f"{row.dtype.str} {row.shape}".encode())
    digest.update(np.ascontiguousarray(row).reshape(-1).data)
    return digest.hexdigest()
