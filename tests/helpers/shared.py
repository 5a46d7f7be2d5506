"""Folders that one of the test processes of a session makes for all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.records.runs import LOCK


def linked_copy(source: Path, target: Path) -> None:
    """Copy a folder of runs by links to its files, which must be replaced and not written into.

    Locks are left out: a link to one is the same lock, which tests in other processes hold too.
    """
    shutil.copytree(source, target, copy_function=os.link, ignore=shutil.ignore_patterns(LOCK))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that ``make`` fills for whichever process of pytest-xdist comes first; the others wait for it.

    Args:
        factory: of this process.
        name: of the folder; one per use.
        make: fills the folder that it is handed. What it makes is only to be read afterwards.
    """
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if session is None:
        folder = factory.mktemp(name)
        make(folder)
        return folder
    folder = factory.getbasetemp().parent / f"{name}-{session}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.with_suffix(".made").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            folder.with_suffix(".made").touch()
    return folder
