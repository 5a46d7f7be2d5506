"""JSON lines: one pair per line with ``caption``, ``image_0``, ``image_1`` (paths) and ``label_0``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.core.errors import UserError
from bench.core.strict import check_characters, parse_json, quoted, read_utf8
from bench.data.sources.base import Source, file_stamp, mapped
from bench.data.sources.table import TableSource

INDEX = "metadata.jsonl"
IMAGE = re.compile(r"image_(\d+)", re.ASCII)
"""Names of images; a field such as ``image_width`` keeps its name."""
MOST_FIELDS = 1000
"""Names of fields, each of which takes memory in every row."""
KINDS: Mapping[type, str] = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
"""What the values of JSON are called."""


def open_jsonl(path: Path, columns: Mapping[str, str]) -> Source | None:
    """A ``.jsonl`` file, or a folder with ``metadata.jsonl``; ``image_0`` is another name of ``jpg_0``, and so on.

    Image paths are relative to the file.

    Raises:
        UserError: a line is not a JSON object, or a field has values of different kinds.
    """
    file = path / INDEX if path.is_dir() else path
    if file.suffix.lower() != ".jsonl" or not file.is_file():
        return None
    table = to_table(_records(file), file)
    images = {f"jpg_{found[1]}": name for name in table.schema.names if (found := IMAGE.fullmatch(name))}
    known = {name: column for name, column in images.items() if name not in table.schema.names}
    names = mapped(table.schema.names, {**known, **columns}, file)
    table = table.select(list(names.values())).rename_columns(list(names))
    return TableSource(table, file.parent, [file], [file_stamp(file), dict(columns)])


def to_table(records: list[dict[str, Any]], file: Path) -> pa.Table:
    """Records as a table with one column per field.

    Raises:
        UserError: there are no records, or a field has values of different kinds.
    """
    if not records:
        raise UserError(f"{file} is empty; give a file with preference pairs")
    fields = list(dict.fromkeys(field for record in records for field in record))
    if len(fields) > MOST_FIELDS:
        raise UserError(
            f"{file} has {len(fields):,} names of fields, and at most {MOST_FIELDS:,} are read; leave some out"
        )
    arrays = {}
    for field in fields:
        check_characters(field, f"{file}: the name of a field")
        arrays[field] = _column([record.get(field) for record in records], field, file)
    return pa.table(arrays)


def _column(values: Sequence[Any], field: str, file: Path) -> pa.Array:
    kinds: dict[str, int] = {}
    for row, value in enumerate(values):
        if isinstance(value, str) and not value.isascii():
            check_characters(value, f"{file}: row {row}, field {quoted(field)}")
        if value is not None:
            kinds.setdefault(KINDS[type(value)], row)
    if len(kinds) > 1:
        (kind, first), (other, row), *_ = kinds.items()
        raise UserError(
            f"{file}: field {quoted(field)} holds {other} in row {row} ({quoted(values[row])}), but {kind} in row {first}; "
            "use one type"
        )
    try:
        return pa.array(values)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{file}: field {quoted(field)} cannot be a column ({reason}); use plain values") from error


def _records(file: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(read_utf8(file).split("\n"), start=1):
        if not line.strip():
            continue
        record = parse_json(line, f"{file}: line {number}")
        if not isinstance(record, dict):
            raise UserError(f"{file}: line {number} is not a JSON object; write one object per line")
        records.append(record)
    return records
