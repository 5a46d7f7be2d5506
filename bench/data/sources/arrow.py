"""Folders that ``datasets.Dataset.save_to_disk`` wrote, mapped into memory; the package itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from bench.core.errors import UserError, listed
from bench.core.inputs import regular
from bench.core.paths import inside
from bench.core.strict import check_encoding, quoted, read_json_strictly
from bench.data.sources.base import Source, file_stamp, mapped
from bench.data.sources.table import TableSource


def open_arrow(path: Path, columns: Mapping[str, str]) -> Source | None:
    """A folder with ``state.json`` and the Arrow files that it names.

    Raises:
        UserError: the folder holds several splits, or a file is missing or is not an Arrow stream.
    """
    splits = path / "dataset_dict.json"
    if splits.is_file():
        found = read_json_strictly(splits)
        names = found.get("splits") if isinstance(found, dict) else None
        if not isinstance(names, list):
            raise UserError(f"{splits} must hold a list 'splits', but holds {quoted(names)}; save the dataset again")
        raise UserError(
            f"{path} holds several splits; give one of them: {listed(str(path / str(name)) for name in names)}"
        )
    state = path / "state.json"
    if not state.is_file():
        return None
    files = [inside(path, check_encoding(name)) for name in _file_names(state)]
    tables = [_map(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        if table.schema != tables[0].schema:
            raise UserError(f"{file} has other columns or types than {files[0]}; save the dataset again")
    table = pa.concat_tables(tables)
    names = mapped(table.schema.names, columns, path)
    table = table.select(list(names.values())).rename_columns(list(names)).replace_schema_metadata(None)
    return TableSource(table, path, [state, *files], [[file_stamp(file) for file in files], dict(columns)])


def _file_names(state: Path) -> list[str]:
    found = read_json_strictly(state)
    entries = found.get("_data_files") if isinstance(found, dict) else None
    named = [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    names = [name for name in named if isinstance(name, str)]
    if not names or names != named:
        raise UserError(f"{state} must hold a list '_data_files' of objects with a filename; save the dataset again")
    return names


def _map(file: Path) -> pa.Table:
    """The table in a file, of which nothing but the offsets of values and the texts is read yet.

    Raises:
        UserError: it is not an Arrow stream, is damaged, or is compressed so that it takes more memory than it has bytes.
    """
    before, batches = pa.total_allocated_bytes(), []
    try:
        with pa.ipc.open_stream(pa.memory_map(str(regular(file)))) as stream:
            for batch in stream:
                batch.validate(full=True)
                batches.append(batch)
                if pa.total_allocated_bytes() - before > (size := file.stat().st_size):
                    raise UserError(
                        f"{file} has {size:,} bytes and unpacks to more; save the dataset again, uncompressed"
                    )
            return pa.Table.from_batches(batches, stream.schema)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"{file} cannot be read as Arrow ({reason}); save the dataset again") from error
