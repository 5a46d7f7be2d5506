"""Folders that ``datasets.Dataset.save_to_disk`` wrote, mapped into memory; the package itself is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from bench.core.errors import UserError
from bench.core.inputs import read_text, regular
from bench.core.paths import inside
from bench.data.sources.base import Source, file_stamp, mapped
from bench.data.sources.table import TableSource


def open_arrow(path: Path, columns: Mapping[str, str]) -> Source | None:
    """A folder with ``state.json`` and the Arrow files that it names.

    Raises:
        UserError: the folder holds several splits, or a file is missing or is not an Arrow stream.
    """
    splits = path / "dataset_dict.json"
    if splits.is_file():
        names = json.loads(read_text(splits))["splits"]
        raise UserError(
            f"{path} holds several splits; give one of them: {', '.join(str(path / name) for name in names)}"
        )
    state = path / "state.json"
    if not state.is_file():
        return None
    files = [inside(path, entry["filename"]) for entry in json.loads(read_text(state))["_data_files"]]
    table = pa.concat_tables([_map(file) for file in files])
    names = mapped(table.schema.names, columns, path)
    table = table.select(list(names.values())).rename_columns(list(names)).replace_schema_metadata(None)
    return TableSource(table, path, [state, *files], [[file_stamp(file) for file in files], dict(columns)])


def _map(file: Path) -> pa.Table:
    try:
        return pa.ipc.open_stream(pa.memory_map(str(regular(file)))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file} cannot be read as Arrow ({error}); save the dataset again") from error
