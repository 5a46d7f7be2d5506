"""Files from anywhere: looked at before they are opened, so that none of them hangs or fills the memory."""

from __future__ import annotations

import stat
from pathlib import Path

from bench.core.errors import UserError

MOST_TEXT = 1 << 30
"""Bytes of the largest text file that is read as a whole: JSON, lines, tables of prompts."""

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
"""What is never opened, by type: reading it may wait for ever, or act on the machine."""


def special(path: Path) -> str | None:
    """What a path is, in words, if it is neither a file nor a folder; None for these, and where there is nothing."""
    try:
        return KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except OSError:  # whoever opens it says why
        return None


def regular(path: Path) -> Path:
    """A path that is about to be opened by name, for example by a library.

    Raises:
        UserError: it is a named pipe, a device or a socket, which is not opened.
    """
    if (kind := special(path)) is not None:
        raise UserError(f"{path} is {kind}, not a file; give a regular file")
    return path


def regular_files(folder: Path) -> Path:
    """A folder whose files a library opens by name, at any depth.

    Raises:
        UserError: one of them is a named pipe, a device or a socket.
    """
    for path in folder.rglob("*"):
        regular(path)
    return folder


def bounded(path: Path, most: int = MOST_TEXT) -> Path:
    """A path that is about to be read as a whole.

    Args:
        path: a file.
        most: bytes.

    Raises:
        UserError: see `regular`, or the file is larger.
        OSError: there is no such file.
    """
    size = regular(path).stat().st_size
    if size > most:
        raise UserError(f"{path} has {size:,} bytes, and at most {most:,} are read; split it, or give another file")
    return path


def read_text(path: Path, *, encoding: str = "utf-8", errors: str = "strict", most: int = MOST_TEXT) -> str:
    """The text of a file of at most ``most`` bytes; see `bounded`."""
    return bounded(path, most).read_text(encoding=encoding, errors=errors)


def read_bytes(path: Path, most: int = MOST_TEXT) -> bytes:
    """The bytes of a file of at most ``most`` bytes; see `bounded`."""
    return bounded(path, most).read_bytes()
