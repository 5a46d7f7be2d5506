"""Folders that ``datasets.Dataset.save_to_disk`` wrote, mapped into memory; the package itself is not needed."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from bench.core.errors import UserError, listed
from bench.core.inputs import regular
from bench.core.paths import inside
from bench.core.strict import check_encoding, quoted, read_json_strictly
from bench.data.sources.base import Source, file_stamp, mapped
from bench.data.sources.table import TableSource

OLD_CODEC = b"ARROW:experimental_compression"
"""The key under which the first writers that compressed named the codec of a message."""


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
        UserError: it is not an Arrow stream, is damaged, or is compressed.
    """
    batches = []
    try:
        if any(map(_compressed, pa.ipc.MessageReader.open_stream(pa.memory_map(str(regular(file)))))):
            raise UserError(f"{file} is compressed, and may unpack to any size; save the dataset again, uncompressed")
        with pa.ipc.open_stream(pa.memory_map(str(file))) as stream:
            for batch in stream:
                batch.validate(full=True)
                batches.append(batch)
            _ = stream.schema.names  # read here, since it raises where a name is not UTF-8
            return pa.Table.from_batches(batches, stream.schema)
    except (pa.ArrowException, OSError, UnicodeDecodeError, struct.error) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"{file} cannot be read as Arrow ({reason}); save the dataset again") from error


def _compressed(message: pa.Message) -> bool:
    """Whether the buffers of a message are compressed, which pyarrow tells of no message that it has not unpacked.

    The metadata is a table of FlatBuffers, which pyarrow has verified: https://github.com/apache/arrow/blob/main/format/Message.fbs.
    """
    if message.type not in ("record batch", "dictionary"):
        return False
    metadata = memoryview(message.metadata)
    root = _pointed(metadata, 0)
    header = _field(metadata, root, number=2)
    if header and message.type == "dictionary":
        header = _field(metadata, _pointed(metadata, header), number=1)
    return OLD_CODEC in bytes(metadata) or (header != 0 and _field(metadata, _pointed(metadata, header), number=3) != 0)


def _field(metadata: memoryview, table: int, number: int) -> int:
    """Where the field of a table is, which is counted in the order of the schema; 0 if it is left out."""
    (offset,) = struct.unpack_from("<i", metadata, table)
    sizes = table - offset
    (length,) = struct.unpack_from("<H", metadata, sizes)
    place = 4 + 2 * number
    (found,) = struct.unpack_from("<H", metadata, sizes + place) if place < length else (0,)
    return table + found if found else 0


def _pointed(metadata: memoryview, place: int) -> int:
    """Where the table is that a field refers to."""
    (offset,) = struct.unpack_from("<I", metadata, place)
    return place + int(offset)
