"""Parquet, read by one module: a small file that unpacks to more than the memory holds is refused before it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.core.errors import UserError, listed
from bench.core.inputs import regular
from bench.core.strict import check_encoding

MOST_ROWS = 1 << 27
"""Rows of the largest file."""
MOST_BYTES = 2 << 30
"""Bytes that the columns of a file unpack to, at most, where they are read as a whole; a million captions have 100 MB."""
MOST_PAGE, MOST_RATIO = 64 << 20, 100
"""A column of a row group may unpack to more bytes than the first, or to a larger multiple of its size on disk, not to both."""
ROWS = 4096
"""Rows that are unpacked at a time."""
FEW = 32
"""The same where values may be images or lists, which are unpacked whole."""
BUFFER = 1 << 20
ROW_COST = 8
"""Bytes that a row takes at least, whatever it holds."""


def read_schema(file: Path) -> pa.Schema:
    """The columns of a file; nothing else is read.

    Raises:
        UserError: the file is not Parquet, or unpacks to too much.
    """
    return metadata(file).schema.to_arrow_schema()


def metadata(file: Path) -> Any:
    """What a file says of itself, after a check.

    Raises:
        UserError: the file is not Parquet, or its rows or columns are more than a file of its size can hold.
    """
    try:
        about = pq.read_metadata(check_encoding(str(regular(file))))
        chunks = [about.row_group(group).column(place) for group in range(about.num_row_groups)
                  for place in range(about.num_columns)]  # fmt: skip
        _ = about.schema.to_arrow_schema().names  # may be of unknown types, and not UTF-8
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error
    if about.num_rows > MOST_ROWS:
        raise UserError(
            f"{file} has {about.num_rows:,} rows, and at most {MOST_ROWS:,} are read; give fewer in one file"
        )
    for chunk in chunks:
        unpacked = chunk.total_uncompressed_size
        if unpacked > MOST_PAGE and unpacked > MOST_RATIO * chunk.total_compressed_size:
            raise _too_large(file, chunk.path_in_schema, unpacked)
    return about


def read_columns(file: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a file, without images, all rows; dictionaries on disk become plain values.

    Args:
        file: the file.
        columns: names, which may hold dots, or dotted names of fields of structs.

    Raises:
        UserError: the file is damaged, or the columns unpack to more than `MOST_BYTES`.
    """
    metadata(file)
    with opened(file) as source:
        groups = range(source.num_row_groups)
        there = source.schema_arrow.names
        names = [next(name for name in (column, *there) if name in there and f"{column}.".startswith(f"{name}."))
                 for column in columns]  # fmt: skip
        kept, size = [], 0
        flat = not {*names} & {field.name for field in source.schema_arrow if pa.types.is_nested(field.type)}
        for batch in read_batches(source, file, ROWS if flat else FEW, groups, columns):
            size += ROW_COST * batch.num_rows + sum(map(unpacked_size, batch.columns))
            if size > MOST_BYTES:
                raise _too_large(file, listed(columns), size)
            columns_read = [plain(column) for column in batch.columns]
            kept.append(pa.record_batch(columns_read, names=batch.schema.names))
        if not kept:
            return source.schema_arrow.empty_table().select(names)
    return pa.Table.from_batches(kept).select(names)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def opened(file: Path) -> pq.ParquetFile:
    """A file whose columns of texts and bytes are read as dictionaries, so that each value is in memory once.

    Columns of structs and lists are read as they are.

    Raises:
        UserError: the file is not Parquet.
    """
    try:
        about = pq.read_metadata(regular(file)).schema
        leaves = [about.column(place) for place in range(len(about))]
        names = {*about.to_arrow_schema().names}
        packed = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.path in names]
        return pq.ParquetFile(file, read_dictionary=packed, buffer_size=BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def read_batches(
    source: pq.ParquetFile, file: Path, rows: int, groups: Sequence[int], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of some columns of some row groups, whose texts are UTF-8.

    Raises:
        UserError: a page is damaged, or a text is not UTF-8.
    """
    try:
        for batch in source.iter_batches(rows, row_groups=list(groups), columns=list(columns), use_threads=False):
            batch.validate(full=True)
            yield batch
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def unpacked_size(column: pa.Array) -> int:
    """Bytes that the values of a column take without a dictionary."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return int(pc.sum(lengths.cast(pa.int64())).as_py() or 0)


def plain(column: pa.Array) -> pa.Array:
    """A column of values, not of a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a column, whether they are in a dictionary or not."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def unreadable(file: Path, error: Exception) -> UserError:
    """The sentence about a file that is not Parquet, or damaged."""
    reason = next(iter(str(error).splitlines()), "")
    return UserError(f"{file} cannot be read as Parquet ({reason}); write it again")


def _too_large(file: Path, column: str, size: int) -> UserError:
    return UserError(
        f"{file} has {file.stat().st_size:,} bytes, and its column {column} unpacks to at least {size:,}, more than is "
        "read; give a file that was not made to fill the memory"
    )
