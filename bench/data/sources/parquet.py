"""Parquet: a file or a folder of them, read a few rows at a time."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.core.errors import UserError
from bench.core.folders import walk
from bench.core.parquet import is_text, metadata, opened, read_batches, read_columns
from bench.core.strict import parse_json
from bench.data.sources.base import (
    Source,
    cell_problem,
    file_stamp,
    image_bytes,
    images_stamp,
    is_hidden,
    mapped,
    paths_in,
    stored_file,
)
from bench.data.sources.columns import check_types

PROVENANCE = b"bench.provenance"
"""Key of the schema's metadata under which the data's provenance is, as JSON."""
SPLIT = re.compile(r"(train|training|test|validation|valid|val|dev|eval)(?:_unique)?(?:[-_.]|$)", re.IGNORECASE)
"""How names of files and folders begin that hold one split of a dataset."""
SHARD = re.compile(r"(?P<split>.+)-(?P<number>[0-9]{1,9})-of-(?P<count>[0-9]{1,9})\.parquet")
"""Names of the parts of a split.  Older names of the hub end in a hash, as those of Pick-a-Pic do, of which people take a few."""
MOST_SHARDS = 1 << 20
BATCH = 32


def open_parquet(path: Path, columns: Mapping[str, str]) -> Source | None:
    """Any file, or a folder with ``*.parquet`` at any depth; files are read in the order of their paths.

    Hidden files are left out: other programs create them, such as ``._a.parquet``.

    Raises:
        UserError: the names in the folder are those of several splits.
    """
    files = [path]
    if path.is_dir():
        found = (file for file in walk(path) if file.name.endswith(".parquet") and file.is_file())
        files = sorted(file for file in found if not is_hidden(file.relative_to(path)))
        _refuse_several_splits(path, files)
        _refuse_gaps(files)
    return ParquetSource(files, columns) if files else None


def _refuse_several_splits(folder: Path, files: Sequence[Path]) -> None:
    """Training on what is held out for testing is never what was meant."""
    splits: dict[str, Path] = {}
    for file in files:
        for part in file.relative_to(folder).parts:
            if match := SPLIT.match(part):
                splits.setdefault(match[1].lower(), file.parent if part != file.name else file)
    if len(splits) > 1:
        raise UserError(
            f"{folder} holds several splits, {' and '.join(sorted(splits))}; give the files of one of them, for example in a "
            f"folder of their own ({splits[min(splits)]})"
        )


def _refuse_gaps(files: Sequence[Path]) -> None:
    """Files named ``train-00000-of-00003.parquet`` say how many there are; a part of them is an unfinished copy."""
    shards: dict[Path, dict[int, set[int]]] = {}
    for file in files:
        if match := SHARD.fullmatch(file.name):
            counts = shards.setdefault(file.with_name(match["split"]), {})
            counts.setdefault(int(match["count"]), set()).add(int(match["number"]))
    for place, counts in shards.items():
        if len(counts) > 1:
            told = " and ".join(map(str, sorted(counts)))
            raise UserError(f"{place}-*.parquet are files of sets of {told}; keep the files of one set")
        ((count, numbers),) = counts.items()
        if missing := sorted({*range(min(count, MOST_SHARDS))} - numbers):
            raise UserError(
                f"{place}-*.parquet are {len(numbers)} of {count} files, number {missing[0]} is missing; complete the copy, or "
                "give the files other names"
            )


class ParquetSource(Source):
    """Rows of Parquet files; images are read in batches of `BATCH` rows, whatever the size of the row groups.

    Raises:
        UserError: a file is not Parquet, or lacks a column of ``columns`` or of the first file.
    """

    def __init__(self, files: Sequence[Path], columns: Mapping[str, str]) -> None:
        found = [metadata(file) for file in files]
        self._columns = mapped(found[0].schema.to_arrow_schema().names, columns, files[0])
        for file, about in zip(files, found, strict=True):
            schema = about.schema.to_arrow_schema()
            missing = [column for column in self._columns.values() if column not in schema.names]
            if missing:
                raise UserError(f"{file} has no column {missing[0]!r}, but {files[0]} has; give files of one kind")
            names = {column: name for name, column in self._columns.items()}
            check_types([(names[each.name], each.type) for each in schema if each.name in names], file, self._columns)
        self._files = files
        self._groups = [(file, group) for file, about in zip(files, found, strict=True)
                        for group in range(about.num_row_groups)]  # fmt: skip
        counts: list[int] = [
            about.row_group(group).num_rows for about in found for group in range(about.num_row_groups)
        ]
        self._starts: list[int] = [0, *itertools.accumulate(counts)]
        self._group, self._first, self._rows = -1, 0, 0
        self._batch: Any = None
        self._rest: Iterator[Any] = iter(())
        self.names = list(self._columns)
        self.stamp = [[file_stamp(file) for file in files], dict(columns), images_stamp(self._named_images())]
        self.provenance = _provenance(found[0].metadata or {}, files[0])

    def __len__(self) -> int:
        return self._starts[-1]

    def facts(self, names: Sequence[str]) -> pa.Table:
        wanted = [self._columns[name] for name in names]
        tables = [read_columns(file, wanted).rename_columns(list(names)) for file in self._files]
        pa.default_memory_pool().release_unused()  # return the decoder's buffers to the system: they are not needed again soon
        return pa.concat_tables(tables, promote_options="permissive")

    def problem(self, row: int, image: int) -> str:
        self._seek(row)
        return cell_problem(self._cells(row)[image].as_py(), self._folder)

    def images(self, row: int) -> tuple[bytes, ...]:
        self._seek(row)
        folder = self._folder
        return tuple(image_bytes(cell.as_py(), folder) for cell in self._cells(row))

    @property
    def _folder(self) -> Path:
        """Where the file lies that is being read, and to which paths in it are relative."""
        return self._groups[self._group][0].parent

    def _cells(self, row: int) -> list[Any]:
        """The image cells of a row of the batch that is in memory, as Arrow scalars; of a dictionary only their values are unpacked."""
        return [column[row - self._first] for column in self._batch.columns]

    @property
    def files(self) -> Sequence[Path]:
        there = (image for image in dict.fromkeys(self._named_images()) if stored_file(image.parent, image.name))
        return [*self._files, *there]

    def _named_images(self) -> Iterator[Path]:
        """The image files that cells name by their paths, in order."""
        return itertools.chain.from_iterable(map(self._named_in, self._files))

    def _named_in(self, file: Path) -> Iterator[Path]:
        """The image files that a file names; the bytes of images are not read.

        A column whose cells all hold bytes names none: its paths say where an image was once, and millions would be looked for.
        """
        about = metadata(file)
        schema = about.schema.to_arrow_schema()
        kinds = {column: schema.field(column).type for column in (self._columns[name] for name in self.image_names)}
        structs = [column for column, kind in kinds.items() if pa.types.is_struct(kind) and _has_path(kind)]
        named = [f"{column}.path" for column in structs if not _holds_all(about, f"{column}.bytes")]
        texts = [column for column, kind in kinds.items() if pa.types.is_dictionary(kind) or is_text(kind)]
        if wanted := [*named, *texts]:
            for column in read_columns(file, wanted).columns:
                yield from (file.parent / path for path in paths_in(column))

    def _seek(self, row: int) -> None:
        """Read on to the batch that holds a row, unless it is in memory; going back starts its row group again."""
        if self._first <= row < self._first + self._rows:
            return
        group = bisect.bisect_right(self._starts, row) - 1
        if group != self._group or row < self._first:
            self._group, self._first, self._rows = group, self._starts[group], 0
            self._rest = self._read(group)
        while row >= self._first + self._rows:
            self._first += self._rows
            self._batch = next(self._rest)
            self._rows = self._batch.num_rows

    def _read(self, group: int) -> Iterator[Any]:
        file, number = self._groups[group]
        wanted = [self._columns[name] for name in self.image_names]
        with opened(file) as source:
            for batch in read_batches(source, file, BATCH, [number], wanted):
                yield batch.select(wanted)


def _holds_all(about: Any, leaf: str) -> bool:
    """Whether a column of a file, by its dotted name, has a value in every row; one that is empty is a value too."""
    columns = [about.schema.column(place).path for place in range(about.num_columns)]
    if leaf not in columns:
        return False
    found = [about.row_group(group).column(columns.index(leaf)).statistics for group in range(about.num_row_groups)]
    return all(each is not None and each.has_null_count and each.null_count == 0 for each in found)


def _has_path(kind: pa.StructType) -> bool:
    return bool(kind.get_field_index("path") >= 0)


def _provenance(written: Mapping[bytes, bytes], file: Path) -> list[dict[str, Any]]:
    """The steps that made the data, as far as its metadata says.

    Raises:
        UserError: they are not a list of objects, as this package writes them.
    """
    where = f"{file}: the provenance in its metadata"
    steps = parse_json(written.get(PROVENANCE, b"[]").decode(errors="replace"), where)
    judges = (
        [step.get("judges", []) if isinstance(step, dict) else None for step in steps]
        if isinstance(steps, list)
        else [None]
    )
    if not all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in judges):
        raise UserError(f"{where} is not a list of steps; write the file again with: bench data")
    return list(steps)
