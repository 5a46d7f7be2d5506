"""Digests of large files are kept, and never trusted where the file may have changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.core import digests
from bench.core.digests import SETTLED, SMALL, files_digest, stamp


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sparse file that is kept; its time of change is what it is, so that the clock is set forward instead."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    now = digests.time.time_ns()
    monkeypatch.setattr(digests.time, "time_ns", lambda: now + 2 * SETTLED)
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate(SMALL)
    return file


def expected(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def kept(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache").rglob("*") if path.is_file()]


def test_a_large_file_is_read_once(large: Path) -> None:
    assert files_digest([large]) == expected(large)
    [entry] = kept(large.parent)
    entry.write_text("f" * 16)  # not the digest, so that it shows who has read the file again
    program = "import sys; from pathlib import Path; from bench.core.digests import files_digest; "
    program += "print(files_digest([Path(sys.argv[1])]))"
    second = subprocess.run([sys.executable, "-c", program, str(large)], capture_output=True, text=True, check=True)
    assert second.stdout.strip() == "f" * 16


def test_a_change_under_the_old_size_and_time_is_seen(large: Path) -> None:
    first, about = files_digest([large]), large.stat()
    with large.open("r+b") as stream:
        stream.write(b"x")
    os.utime(large, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert stamp(large) != (*stamp(large)[:-1], about.st_ctime_ns)
    assert files_digest([large]) == expected(large) != first


def test_a_file_that_was_written_just_now_is_not_kept(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests.time, "time_ns", lambda: large.stat().st_ctime_ns + SETTLED // 2)
    assert files_digest([large]) == expected(large)
    assert kept(large.parent) == []


def test_a_small_file_is_always_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "small"
    file.write_bytes(b"a")
    assert files_digest([file]) == expected(file)
    file.write_bytes(b"b")
    assert files_digest([file]) == expected(file)
    assert kept(tmp_path) == []
