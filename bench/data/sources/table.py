"""Rows of a table whose images are in its cells or in files that the cells name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.data.sources.base import Source, cell_problem, image_bytes, images_stamp, paths_in
from bench.data.sources.columns import check_types


class TableSource(Source):
    """Rows of a table in memory, or memory-mapped.

    Args:
        table: columns under Pick-a-Pic's names; images are bytes, structs of `datasets`, or paths.
        folder: what relative image paths are relative to.
        files: what the table was read from.
        stamp: see `Source`; covers the table only, the image files are added here.

    Raises:
        UserError: a column holds something else than its name says.
    """

    def __init__(self, table: pa.Table, folder: Path, files: Sequence[Path], stamp: Any) -> None:
        check_types([(field.name, field.type) for field in table.schema], files[0], {})
        self._table, self._folder, self._files = table, folder, files
        self.names = table.schema.names
        self.stamp = [stamp, images_stamp(self._named_images())]

    @property
    def files(self) -> Sequence[Path]:
        return [*self._files, *dict.fromkeys(self._named_images())]

    def _named_images(self) -> Iterator[Path]:
        """The image files that cells name by their paths, in order."""
        return (self._folder / path for name in self.image_names for path in paths_in(self._table[name]))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def facts(self, names: Sequence[str]) -> pa.Table:
        return self._table.select(list(names))

    def problem(self, row: int, image: int) -> str:
        return cell_problem(self._table[f"jpg_{image}"][row].as_py(), self._folder)

    def images(self, row: int) -> tuple[bytes, ...]:
        return tuple(image_bytes(self._table[name][row].as_py(), self._folder) for name in self.image_names)
