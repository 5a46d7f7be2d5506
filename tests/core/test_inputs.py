"""Files that would hang or fill the memory are refused before they are opened."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.core.errors import UserError
from bench.core.inputs import bounded, read_text, regular
from bench.core.parquet import read_columns

MEGABYTE = 1 << 20


def test_a_named_pipe_and_a_device_are_not_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="/dev/zero is a device"):
        regular(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is a named pipe, not a file"):
        read_text(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="link is a device"):
        regular(tmp_path / "link")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket"))  # the whole path may be too long for a socket
        with pytest.raises(UserError, match="socket is a socket"):
            regular(tmp_path / "socket")


def test_a_file_that_is_larger_than_what_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(UserError, match="has 1,099,511,627,776 bytes, and at most 1,073,741,824 are read"):
        bounded(tmp_path / "sparse")


def test_columns_are_the_same_as_pyarrow_reads(tmp_path: Path) -> None:
    structs = pa.array([{"bytes": b"abc", "path": "a"}, None, {"bytes": None, "path": "b"}] * 700)
    table = pa.table(
        {
            "structs": structs,
            "lists": [["a", "é"], [], None] * 700,
            "packed": pa.array(["x", "y", None] * 700).dictionary_encode(),
            "texts": ["a bee", None, ""] * 700,
            "numbers": [1.5, None, -0.0] * 700,
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=300)
    names = ["texts", "lists", "numbers", "structs", "packed"]
    read = read_columns(tmp_path / "t.parquet", names)
    assert read.schema.names == names
    assert read.to_pylist() == table.select(names).to_pylist()
    paths = read_columns(tmp_path / "t.parquet", ["structs.path"])
    assert paths["structs"].to_pylist()[:3] == [{"path": "a"}, None, {"path": "b"}]


def test_a_small_parquet_file_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    """One text of a megabyte, 4,900 times: the file keeps it once."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 4900, pa.int32()), pa.array(["x" * MEGABYTE]))
    pq.write_table(pa.table({"caption": text}), tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 30_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"bomb.parquet has [\d,]+ bytes, and its column caption unpacks to at least"):
        read_columns(tmp_path / "bomb.parquet", ["caption"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_a_page_that_unpacks_to_much_more_than_it_has(tmp_path: Path) -> None:
    table = pa.table({"jpg_0": [bytes(100 * MEGABYTE)]})
    pq.write_table(table, tmp_path / "page.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(UserError, match="its column jpg_0 unpacks to at least"):
        read_columns(tmp_path / "page.parquet", ["jpg_0"])
