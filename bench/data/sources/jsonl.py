"""JSON lines: one pair per line with ``caption``, ``image_0``, ``image_1`` (paths) and ``label_0``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.core.errors import UserError
from bench.core.inputs import bounded
from bench.data.sources.base import Source, file_stamp, mapped
from bench.data.sources.table import TableSource

INDEX = "metadata.jsonl"


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
    images = {name.replace("image_", "jpg_", 1): name for name in table.schema.names if name.startswith("image_")}
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
    arrays = {}
    for field in fields:
        try:
            arrays[field] = pa.array([record.get(field) for record in records])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UserError(
                f"{file}: field {field!r} has values of different types ({str(error).splitlines()[0]}); use one type"
            ) from error
    return pa.table(arrays)


def _records(file: Path) -> list[dict[str, Any]]:
    records = []
    with bounded(file).open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{file}: line {number} is not valid JSON ({error.msg}); write one object per line"
                ) from error
            if not isinstance(record, dict):
                raise UserError(f"{file}: line {number} is not a JSON object; write one object per line")
            records.append(record)
    return records
