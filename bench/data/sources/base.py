"""The interface of every layout of preference data: rows under Pick-a-Pic's column names."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bench.core.digests import stamp
from bench.core.errors import UserError, did_you_mean
from bench.core.images import MOST_IMAGE
from bench.core.values import digest


class Source(abc.ABC):
    """Rows of preference data in one layout; `bench.data.reading` decides which of them are kept.

    Attributes:
        names: its columns, under Pick-a-Pic's names.
        stamp: a JSON value that changes when the files on disk change.
        files: the files that hold the rows, and the images that rows name by their paths.
        provenance: the steps that made the data, oldest first, JSON values; empty if it is not recorded.
    """

    names: Sequence[str]
    stamp: Any
    files: Sequence[Path] = ()
    provenance: Sequence[dict[str, Any]] = ()

    @property
    def image_names(self) -> list[str]:
        """The image columns ``jpg_0``, ``jpg_1``, ... up to the first that is missing."""
        return numbered(self.names, "jpg")

    @property
    def fact_names(self) -> list[str]:
        """All other columns."""
        images = self.image_names
        return [name for name in self.names if name not in images]

    @abc.abstractmethod
    def __len__(self) -> int:
        """Rows."""

    @abc.abstractmethod
    def facts(self, names: Sequence[str]) -> pa.Table:
        """Some columns without images, all rows."""

    @abc.abstractmethod
    def images(self, row: int) -> tuple[bytes, ...]:
        """The encoded images of one row, empty bytes where there is none; reading rows in order is cheap and needs little memory."""


def numbered(names: Sequence[str], stem: str) -> list[str]:
    """``stem_0``, ``stem_1``, ... up to the first that is not in ``names``."""
    found: list[str] = []
    while f"{stem}_{len(found)}" in names:
        found.append(f"{stem}_{len(found)}")
    return found


def mapped(names: Sequence[str], columns: Mapping[str, str], where: Path) -> dict[str, str]:
    """Columns on disk by their names here; a column whose name another one takes over is left out.

    Raises:
        UserError: ``columns`` names a column that does not exist.
    """
    for wanted in columns.values():
        if wanted not in names:
            hint = did_you_mean(wanted, names)
            raise UserError(f"{where}: column {wanted!r} of --columns is missing; {hint}it has {', '.join(names)}")
    others = {name: name for name in names if name not in columns and name not in columns.values()}
    return {**others, **columns}


def image_bytes(cell: Any, folder: Path) -> bytes:
    """Image bytes of a cell: plain bytes, the struct that `datasets` writes, or a path; empty if there are none.

    Args:
        cell: the value as Python has it.
        folder: what relative paths are relative to.
    """
    if isinstance(cell, dict):
        return cell.get("bytes") or image_bytes(cell.get("path"), folder)
    if not isinstance(cell, str):
        return cell or b""
    file = folder / cell
    return file.read_bytes() if file.is_file() and file.stat().st_size <= MOST_IMAGE else b""


def paths_in(column: pa.ChunkedArray) -> list[str]:
    """The paths by which an image column names files: texts, or the structs that `datasets` writes where they hold no bytes."""
    kind = column.type
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        if "bytes" in names:
            column = column.filter(pc.equal(pc.fill_null(pc.binary_length(pc.struct_field(column, "bytes")), 0), 0))
        return paths_in(pc.struct_field(column, "path")) if "path" in names else []
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return [path for path in column.to_pylist() if path] if is_text(value) else []


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def images_stamp(images: Iterable[Path]) -> str:
    """Digest of the `file_stamp` of image files."""
    return digest([file_stamp(image) for image in images])


def file_stamp(file: Path) -> list[Any]:
    """The `bench.core.digests.stamp` of a file, or its path alone where there is no file."""
    return list(stamp(file)) if file.is_file() else [str(file)]


def is_hidden(path: Path) -> bool:
    """Whether a part of a relative path begins with a dot."""
    return any(part.startswith(".") for part in path.parts)
