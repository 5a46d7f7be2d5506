"""Writing that leaves either the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from bench.core.errors import UserError
from bench.core.inputs import read_text, regular
from bench.core.resources import FULL

REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
BLOCK = 1 << 22
"""Bytes read at a time, so a checkpoint of many gigabytes is never in memory as a whole."""
ELSEWHERE = "give another --output or --runs"


@contextlib.contextmanager
def space_checked(target: Path) -> Iterator[None]:
    """Turn a full disk, quota or file-size limit while writing ``target`` into a `UserError`; what was written before stays."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if _error_number(error) not in FULL:
            raise
        raise UserError(
            f"the disk is full: {target} could not be written; free some space and run the same command again, "
            "everything before it is kept"
        ) from error


@contextlib.contextmanager
def write_checked(target: Path) -> Iterator[None]:
    """As `space_checked`, and turn a place that cannot be written into a `UserError` too."""
    try:
        with space_checked(target):
            yield
    except (OSError, SafetensorError) as error:
        number = _error_number(error)
        if number not in REFUSED:
            raise
        raise UserError(f"{target} cannot be written ({os.strerror(number)}); {ELSEWHERE}") from error


def make_folder(folder: Path) -> None:
    """Create a folder and its parents if they do not exist.

    Raises:
        UserError: it cannot be created, for example because part of its path is a file.
    """
    try:
        with space_checked(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{folder} is a file, not a folder; {ELSEWHERE}") from error
    except OSError as error:
        raise UserError(f"{folder} cannot be created ({error.strerror}); {ELSEWHERE}") from error


def _error_number(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if re.search(r"\d+ requested and \d+ written", str(error)):  # numpy, whose OSError has no number
        return errno.ENOSPC
    # safetensors and hf_xet write with Rust, whose errors state the number only in their text
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside ``path`` with ``write(partial)`` and rename it into place; of several writers at once the last one wins.

    Raises:
        UserError: it cannot be written, or ``path`` is a folder, a device or another thing that is not a file.
    """
    make_folder(path.parent)
    if path.exists() and not path.is_file():
        raise UserError(f"{path} exists and is not a file; {ELSEWHERE}")
    with write_checked(path), partial_of(path) as partial:
        create_file(partial)
        write(partial)
        _force_to_disk(partial)
        partial.replace(path)


def replace_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Write a folder beside ``path`` with ``write(partial)`` and rename it into place; an old one goes last.

    The caller holds a lock: a folder cannot take the place of another one in one go.
    """
    make_folder(path.parent)
    with write_checked(path), partial_of(path) as partial:
        partial.mkdir()
        write(partial)
        for file in (*partial.rglob("*"), partial):
            _force_to_disk(file)
        remove(path)
        partial.replace(path)
        _force_to_disk(path.parent)


@contextlib.contextmanager
def partial_of(path: Path) -> Iterator[Path]:
    """A path beside ``path`` that no other writer has, to be renamed in the block; what an error leaves there is removed."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
    except BaseException:
        remove(partial)
        raise


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what writers that were killed have left under a folder; only for the process that holds the lock on these files.

    Args:
        name: which files they were writing, as a pattern.
    """
    for partial in folder.rglob(f".{name}.partial"):
        remove(partial)


def create_file(path: Path) -> None:
    """Create an empty file where nothing is, not even a link."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))


def remove(path: Path) -> None:
    """Remove a file, a folder or a link, not what the link points to; nothing may be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _force_to_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_array(path: Path, value: NDArray[Any]) -> None:
    """Write an array as ``.npy`` atomically."""

    def write(partial: Path) -> None:
        # numpy appends .npy to a path with another suffix, but not to an open file
        with partial.open("wb") as stream:
            np.save(stream, value)

    replace_file(path, write)


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path) -> Any:
    """Read a JSON file; see `from_json`."""
    return from_json(read_text(path))


def append_lines(path: Path, lines: list[str]) -> None:
    """Append whole lines and force them to disk; a link is not followed."""
    with write_checked(path), open(path, "a", encoding="utf-8", opener=_unfollowed) as stream:
        stream.write("".join(line + "\n" for line in lines))
        stream.flush()
        os.fsync(stream.fileno())


def _unfollowed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Records of a JSON-lines file; a last line that a crash truncated is left out."""
    if not path.exists():
        return []
    text = read_text(path)
    whole = text[: text.rfind("\n") + 1]
    # not splitlines, which also splits at Unicode line separators, and JSON does not escape those
    return [from_json(line) for line in whole.split("\n") if line]


def keep_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Rewrite a JSON-lines file with these records only."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def file_digest(*files: Path) -> str:
    """SHA-256 over the bytes of files in the given order, shortened to 16 hex digits."""
    digest = hashlib.sha256()
    for file in files:
        with regular(file).open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()[:16]
