"""Names and places: what was typed, or stands in a record, never leads out of the folder that it belongs in."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from bench.core.errors import UserError
from bench.core.strict import quoted

NAME = re.compile(r"\w[\w.+-]*")
LONGEST_NAME = 200
"""Bytes of the longest name of a folder; file systems take 255, and names get suffixes."""


def check_name(name: str) -> str:
    """The name of a run, which is that of a folder and of a row of tables.

    Raises:
        UserError: it is empty, too long, or has characters that need quotes somewhere.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"the name {name!r} cannot be used: start with a letter, digit or '_', and use only these, '.', '+' and '-'"
        )
    return check_part(name)


def check_part(name: str) -> str:
    """A name that is one folder's, in whatever language and with spaces.

    Raises:
        UserError: it would lead elsewhere, is hidden or too long, or has a character that cannot be shown.
    """
    if part_like(name) != name:
        raise UserError(
            f"the name {name[:40]!r} cannot be that of a folder: use no slash, backslash or control character, no dot at "
            f"the start, and at most {LONGEST_NAME} bytes"
        )
    return name


def part_like(text: str) -> str:
    """The name nearest to ``text`` that `check_part` takes."""
    plain = "".join(each if each.isprintable() and each not in "/\\" else "-" for each in text).lstrip(".")
    while len(plain.encode()) > LONGEST_NAME:
        plain = plain[:-1]
    return plain.strip() or "unnamed"


def inside(folder: Path, name: str) -> Path:
    """The path of a file that a record names, relative to the record's folder.

    Raises:
        UserError: the name leads out of the folder.
    """
    if leads_out(name):
        raise UserError(
            f"{folder}: the name {quoted(name)} leads out of the folder; the file that holds it is not trusted"
        )
    return folder / PurePosixPath(name)


def leads_out(name: str) -> bool:
    """Whether a name that a record holds is not that of a file below the record's folder."""
    parts = PurePosixPath(name)
    return parts.is_absolute() or ".." in parts.parts or "\0" in name


def unlinked(root: Path, folder: Path) -> Path:
    """A folder that is about to be written: neither the way to it nor anything in it is a symbolic link.

    Args:
        root: the folder above it that the user named, which may be a link itself; of a folder elsewhere only what is in it counts.
        folder: the folder, whether it exists or not.

    Raises:
        UserError: there is a link, through which files would be written elsewhere.
    """
    whole, top = folder.absolute(), root.absolute()
    below = [each for each in whole.parents if each.is_relative_to(top) and each != top]
    for place in (*reversed(below), whole):
        _refuse_link(place)
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            _refuse_link(Path(above, name))
    return folder


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UserError(
            f"{path} is a symbolic link, and links below the runs folder are not followed; put the file or folder itself there"
        )
