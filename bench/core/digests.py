"""Digests of large files, computed once: kept in the user's cache folder by what the file system says of the files."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

from bench.core.errors import UserError
from bench.core.files import file_digest, replace_file
from bench.core.strict import check_encoding

SMALL = 32 << 20
"""Files of fewer bytes together are read every time, which takes a moment."""
SETTLED = 10 * 10**9
"""Nanoseconds since the last change after which another change cannot leave the time of change as it is."""


Stamp = tuple[str, int, int, int, int]


def stamp(file: Path) -> Stamp:
    """What changes when a file does: path, inode, size, time of the last write and of the last change of any kind.

    The last one cannot be set, so that a file that was replaced or edited under its old time is noticed.  The device is left out:
    the number of a network file system is another one on every machine, and after every mount.
    """
    return stamp_of(str(file.resolve()), file.stat())


def stamp_of(path: str, about: os.stat_result) -> Stamp:
    """The `stamp` of a file by its resolved path, from what the file system says about it.

    Raises:
        UserError: the path is not UTF-8, which no record can hold.
    """
    return check_encoding(path), about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def files_digest(files: Sequence[Path]) -> str:
    """The `bench.core.files.file_digest` of files; of large ones it is kept, so that a later command does not read them."""
    if sum(file.stat().st_size for file in files) < SMALL:
        return file_digest(*files)
    return _of_large(tuple(stamp(file) for file in files))


@functools.cache
def _of_large(stamps: tuple[Stamp, ...]) -> str:
    files = [Path(path) for path, *_ in stamps]
    kept = _folder() / hashlib.sha256(repr(stamps).encode()).hexdigest()
    if kept.is_file() and len(found := kept.read_text(encoding="utf-8")) == len(file_digest()):
        return found
    settled = time.time_ns() - max(changed for *_, changed in stamps) > SETTLED
    value = file_digest(*files)
    if settled and tuple(stamp(file) for file in files) == stamps:
        _keep(kept, value)
    return value


def _keep(path: Path, value: str) -> None:
    try:
        replace_file(path, lambda partial: partial.write_text(value, encoding="utf-8"))
    except UserError:
        return  # a cache that cannot be written costs time alone


def _folder() -> Path:
    """Where digests are kept: on Linux under ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    return user_cache_path("diffusion-alignment-bench", appauthor=False) / "digests"
