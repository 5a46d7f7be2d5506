"""The interface of every layout of preference data: rows under Pick-a-Pic's column names."""

from __future__ import annotations

import abc
import functools
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bench.core.digests import stamp, stamp_of
from bench.core.errors import UserError, did_you_mean, listed
from bench.core.images import MOST_IMAGE, UnreadableImageError, open_image
from bench.core.parquet import is_text, plain_type
from bench.core.strict import quoted
from bench.core.values import digest_of_items

PIECE = 4096
"""Paths converted to Python objects at a time."""


class Source(abc.ABC):
    """Rows of preference data in one layout; `bench.data.reading` decides which of them are kept.

    Attributes:
        names: its columns, under Pick-a-Pic's names.
        stamp: a JSON value that changes when the files on disk change.
        provenance: the steps that made the data, oldest first, JSON values; empty if it is not recorded.
    """

    names: Sequence[str]
    stamp: Any
    provenance: Sequence[dict[str, Any]] = ()

    @property
    @abc.abstractmethod
    def files(self) -> Sequence[Path]:
        """The files that hold the rows, and after them the images that rows name by their paths; not kept, they may be millions."""

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

    @abc.abstractmethod
    def problem(self, row: int, image: int) -> str:
        """Why an image of a row cannot be read, in words."""


def numbered(names: Sequence[str], stem: str) -> list[str]:
    """``stem_0``, ``stem_1``, ... up to the first that is not in ``names``."""
    found: list[str] = []
    while f"{stem}_{len(found)}" in names:
        found.append(f"{stem}_{len(found)}")
    return found


def mapped(names: Sequence[str], columns: Mapping[str, str], where: Path) -> dict[str, str]:
    """Columns on disk by their names here; a column whose name another one takes over is left out.

    Raises:
        UserError: a column occurs twice, or ``columns`` names one that does not exist.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"{where} has {count} columns {quoted(name)}; keep one of them")
    for wanted in columns.values():
        if wanted not in names:
            hint = did_you_mean(wanted, names)
            raise UserError(f"{where}: column {wanted!r} of --columns is missing; {hint}it has {listed(names)}")
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
    if (file := stored_file(folder, cell)) is None:
        return b""
    try:
        size = file.stat().st_size  # 0 for what a kernel makes up when it is read, perhaps for ever
        if not 0 < size <= MOST_IMAGE:
            return b""
        with file.open("rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise UserError(
            f"the image {file} cannot be read ({error.strerror}); give the data's images to whoever trains"
        ) from error


def stored_file(folder: Path, text: str) -> Path | None:
    """The file that a text names; None if there is none, for example because the text is not a path."""
    try:
        return file if (file := folder / text).is_file() else None
    except OSError:  # a name that is too long for a file
        return None


def cell_problem(cell: Any, folder: Path) -> str:
    """Why the image of a cell cannot be read, in words; see `image_bytes`."""
    if isinstance(cell, dict) and not cell.get("bytes"):
        cell = cell.get("path")
    if isinstance(cell, str):
        if stored_file(folder, cell) is None:
            return f"{quoted(cell)} is read as a path, and there is no such file in {folder.absolute()}"
        cell = image_bytes(cell, folder)
    if not cell:
        return "it is empty"
    try:
        open_image(cell if isinstance(cell, bytes) else cell["bytes"])
    except UnreadableImageError as error:
        return str(error)
    return "another image of the row cannot be read"


def paths_in(column: pa.ChunkedArray) -> Iterator[str]:
    """The paths by which an image column names files: texts, or the structs that `datasets` writes where they hold no bytes."""
    kind = column.type
    if pa.types.is_struct(kind):
        kinds = {field.name: field.type for field in kind}
        if not pa.types.is_null(kinds.get("bytes", pa.null())):
            column = column.filter(pc.equal(pc.fill_null(pc.binary_length(pc.struct_field(column, "bytes")), 0), 0))
        column = pc.struct_field(column, "path") if "path" in kinds else column
        kind = column.type
    if is_text(plain_type(kind)):
        for start in range(0, len(column), PIECE):
            yield from filter(None, column.slice(start, PIECE).to_pylist())


def images_stamp(images: Iterable[Path]) -> str:
    """Digest of the `file_stamp` of image files, of which there may be millions: each folder is resolved once."""
    resolved = functools.cache(os.path.realpath)
    return digest_of_items(_stamp_in(resolved, image) for image in images)


def _stamp_in(resolved: Callable[[str], str], file: Path) -> list[Any]:
    """The `file_stamp` of a file, which is seldom a link."""
    try:
        about = file.lstat()
    except (OSError, ValueError):
        return file_stamp(file)
    if not stat.S_ISREG(about.st_mode):
        return file_stamp(file)
    folder, name = os.path.split(file)
    path = os.path.join(resolved(folder), name)  # noqa: PTH118 (a path object for each costs as much as the rest)
    return list(stamp_of(path, about))


def file_stamp(file: Path) -> list[Any]:
    """The `bench.core.digests.stamp` of a file, or its path alone where there is no file."""
    return [str(file)] if stored_file(file.parent, file.name) is None else list(stamp(file))


def is_hidden(path: Path) -> bool:
    """Whether a part of a relative path begins with a dot."""
    return any(part.startswith(".") for part in path.parts)
