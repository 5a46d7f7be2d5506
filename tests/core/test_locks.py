"""Locks: whose they are, and what is said where there are none."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from bench.core.errors import UserError
from bench.core.locks import exclusive


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    said = rf"\.lock cannot be locked, since its file system has no locks \({os.strerror(number)}\)"
    with pytest.raises(UserError, match=said), exclusive(tmp_path / ".lock", "works"):
        pass


def test_whoever_is_refused_is_told_which_process_has_the_lock(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / ".lock", "works"),
        pytest.raises(UserError, match=rf"^process {os.getpid()} already works$"),
        exclusive(tmp_path / ".lock", "works"),
    ):
        pass
    assert (tmp_path / ".lock").read_text() == ""
