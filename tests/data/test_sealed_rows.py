"""Rows of a large file are verified one by one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.core.errors import UserError
from bench.core.files import write_array
from bench.core.manifest import seal
from bench.data.sealed_rows import SealedRows, write_rows

VALUES = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
DAMAGED = r"values\.npy is damaged \(its SHA-256 .*; delete it and give the command again"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "values.npy"
    write_rows(path, VALUES)
    return path


def edit(file: Path, change: Callable[[bytes], bytes]) -> None:
    file.write_bytes(change(file.read_bytes()))


def test_what_is_damaged_is_named_when_it_is_read_and_no_other_row_is(file: Path) -> None:
    edit(file, lambda content: content[:-1] + b"\0")
    rows = SealedRows(file)
    assert [rows[row].tolist() for row in range(3)] == VALUES[:3].tolist()
    with pytest.raises(UserError, match=DAMAGED):
        rows[3]


HEADERS: dict[str, Callable[[bytes], bytes]] = {
    "shape": lambda content: content.replace(b"(4, 2, 3)", b"(4, 3, 2)"),
    "fewer rows": lambda content: content.replace(b"(4, 2, 3)", b"(3, 2, 3)"),
    "type": lambda content: content.replace(b"<f4", b"<i4"),
    "order": lambda content: content.replace(b"False", b"True "),
    "magic": lambda content: b"x" + content[1:],
    "cut short": lambda content: content[:-8],
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_a_damaged_header_is_damage(file: Path, change: Callable[[bytes], bytes]) -> None:
    edit(file, change)
    with pytest.raises(UserError, match=DAMAGED):
        SealedRows(file)[1]


def test_a_file_without_digests_of_rows_is_verified_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "values.npy"
    write_array(file, VALUES)
    seal(file)
    assert SealedRows(file)[2].tolist() == VALUES[2].tolist()
    edit(file, lambda content: content[:-1] + b"\0")
    with pytest.raises(UserError, match=DAMAGED):
        SealedRows(file)


def test_a_seal_with_rows_is_still_one_of_sha256sum(file: Path) -> None:
    check = ["sha256sum", "--check", "--strict", f"{file.name}.sha256"]
    assert subprocess.run(check, cwd=file.parent, check=False, capture_output=True).returncode == 0
