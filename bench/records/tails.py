"""The ends of logs, which are read in constant memory."""

from __future__ import annotations

import os
from pathlib import Path

from bench.core.files import BLOCK
from bench.core.inputs import regular

TAIL = 1 << 16
"""Bytes at the end of a log that are read."""


def last_line(path: Path) -> str:
    """The last line of a log that is not empty; empty if there is none."""
    lines = [line for line in tail(path, TAIL).splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def tail(path: Path, count: int) -> str:
    """The last bytes of a file as text; empty if there is none."""
    if not path.exists():
        return ""
    with regular(path).open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - count))
        return stream.read(min(count, BLOCK)).decode("utf-8", errors="replace")
