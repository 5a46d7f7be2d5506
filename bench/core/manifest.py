"""Sizes and SHA-256 of files, written beside them: a file that was changed, cut short or lost is noticed when it is read."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.files import read_json, replace_file, write_json
from bench.core.inputs import read_text, regular
from bench.core.paths import leads_out
from bench.core.strict import quoted

SEAL = ".sha256"
"""What is added to the name of a file for the name of its seal."""
ROW = "# "
"""How lines with digests of rows begin, which ``sha256sum`` skips."""
RECORDS = (".json", ".jsonl")
"""Suffixes of files that are small enough to be verified whenever finished work is recognised."""
KNOWN = 1 << 16
"""Files whose digest a process keeps, so that each is computed once while the file stays as it is."""


class Manifest:
    """The files that a folder consists of, with their sizes and digests.

    Args:
        path: the JSON file that holds it, in that folder.
        files: size in bytes and SHA-256 by path, relative to the folder.
        subject: what the files are about, by which a whole folder in the place of another one is noticed; None if nothing says.
    """

    def __init__(self, path: Path, files: Mapping[str, tuple[int, str]], subject: str | None = None) -> None:
        self.path, self.files, self.subject = path, files, subject

    @classmethod
    def of(cls, path: Path, files: Iterable[Path], subject: str | None = None) -> Manifest:
        """The manifest of files as they are now; it is not written yet."""
        named = {file.relative_to(path.parent).as_posix(): file for file in files}
        return cls(path, {name: (named[name].stat().st_size, sha256(named[name])) for name in sorted(named)}, subject)

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """The manifest that a file holds; None if it is absent or empty, as older versions left it.

        Raises:
            ValueError: the file is not a manifest, or lists a file outside of its folder.
        """
        if not path.exists() or not path.stat().st_size:
            return None
        state = path.stat()
        return cls(path, *_read(path, state.st_size, state.st_mtime_ns))

    def write(self) -> None:
        """Write the file."""
        files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in self.files.items()}
        write_json(self.path, {"files": files} | ({} if self.subject is None else {"subject": self.subject}))

    def with_file(self, file: Path) -> Manifest:
        """The same with one file as it is now."""
        return Manifest(self.path, {**self.files, **Manifest.of(self.path, [file]).files}, self.subject)

    def problem(self, file: Path) -> str | None:
        """What is wrong with a file, in words; None if it is what it was when the manifest was written."""
        name = file.relative_to(self.path.parent).as_posix()
        if name not in self.files:
            return f"{self.path.name} does not list it"
        if (wrong := self._size_problem(name)) is not None:
            return wrong
        return None if sha256(file) == self.files[name][1] else f"its SHA-256 is not the one in {self.path.name}"

    def first_problem(self) -> tuple[Path, str] | None:
        """The first file with a problem, in words; None if there is none.

        Large files are only compared in size: records are text, everything else is verified when it is read.
        """
        for name in self.files:
            file = self.path.parent / name
            wrong = self.problem(file) if file.suffix in RECORDS else self._size_problem(name)
            if wrong is not None:
                return file, wrong
        return None

    def _size_problem(self, name: str) -> str | None:
        file, size = self.path.parent / name, self.files[name][0]
        if not file.is_file():
            return f"it is missing, and {self.path.name} lists it; archives leave out what they were not asked for"
        found = file.stat().st_size
        return None if found == size else f"it has {found:,} bytes, and {self.path.name} says {size:,}"


def sha256(file: Path) -> str:
    """SHA-256 of a file, 64 hex digits; computed once per process while the file's size and time of change stay."""
    state = file.stat()
    return _sha256(file, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


def seal(file: Path, rows: Sequence[str] = ()) -> None:
    """Write a file's digest beside it, in the format of ``sha256sum``.

    Args:
        file: the file.
        rows: digests of its rows, which become comments.
    """
    lines = (f"{sha256(file)}  {file.name}", *(f"{ROW}{row}" for row in rows))
    text = "".join(f"{line}\n" for line in lines)
    replace_file(_seal_of(file), lambda partial: partial.write_text(text, encoding="utf-8"))


def is_sealed(file: Path) -> bool:
    """Whether a file is there with its seal, which is written last."""
    return file.exists() and _seal_of(file).exists()


def unbroken(file: Path) -> Path:
    """A sealed file, for whoever reads it.

    Raises:
        UserError: it is not what it was when it was sealed.
    """
    if sha256(file) != read_text(_seal_of(file), errors="replace").partition(" ")[0]:
        raise broken(file)
    return file


def row_digests(file: Path) -> list[str]:
    """The digests of its rows in a file's seal; none if it was sealed without them."""
    lines = read_text(_seal_of(file), errors="replace").splitlines()
    return [line.removeprefix(ROW) for line in lines if line.startswith(ROW)]


def broken(file: Path) -> UserError:
    """The sentence about a file that is not what its seal says."""
    return UserError(
        f"{file} is damaged (its SHA-256 is not the one in {_seal_of(file).name}); delete it and give the command again, "
        "which computes it again"
    )


def _seal_of(file: Path) -> Path:
    return file.with_name(file.name + SEAL)


@functools.lru_cache(KNOWN)
def _sha256(file: Path, *_state: int) -> str:
    with regular(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.lru_cache(64)
def _read(path: Path, *_state: int) -> tuple[dict[str, tuple[int, str]], str | None]:
    written: Any = read_json(path)
    try:
        files = {name: (int(each["bytes"]), str(each["sha256"])) for name, each in written["files"].items()}
        subject = written.get("subject")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError("it is not a list of files with bytes and sha256") from error
    for name in files:
        if leads_out(name):
            raise ValueError(f"it lists {quoted(name)}, which leads out of the folder")
    return files, subject
