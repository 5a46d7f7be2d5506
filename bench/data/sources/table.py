"""Rows of a table whose images are in its cells or in files that the cells name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.core.values import digest
from bench.data.sources.base import Source, file_stamp, image_bytes


class TableSource(Source):
    """Rows of a table in memory, or mapped into it.

    Args:
        table: columns under Pick-a-Pic's names; images are bytes, structs of `datasets`, or paths.
        folder: what relative image paths are relative to.
        files: what the table was read from.
        stamp: see `Source`; of the table itself, image files are looked at here.
    """

    def __init__(self, table: pa.Table, folder: Path, files: Sequence[Path], stamp: Any) -> None:
        self._table, self._folder = table, folder
        self.names = table.schema.names
        images = [folder / path for path in self._paths()]
        self.files = [*files, *dict.fromkeys(images)]
        self.stamp = [stamp, digest([file_stamp(image) for image in images])]

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def facts(self, names: Sequence[str]) -> pa.Table:
        return self._table.select(list(names))

    def images(self, row: int) -> tuple[bytes, ...]:
        return tuple(image_bytes(self._table[name][row].as_py(), self._folder) for name in self.image_names)

    def _paths(self) -> list[str]:
        columns = [self._table[name] for name in self.image_names]
        return [path for column in columns if pa.types.is_string(column.type) for path in column.to_pylist() if path]
