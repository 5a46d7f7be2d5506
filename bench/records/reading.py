"""Reading the files of a run folder: the error about a damaged one names the first wrong field."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from bench.core.errors import UserError
from bench.core.files import read_json
from bench.core.manifest import Manifest

T = TypeVar("T")

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a field that a model or a dataclass does not have."""


def read_whole(read: Callable[[Path], T], path: Path) -> T:
    """What ``read`` returns for a file of a run.

    Raises:
        UserError: the file is damaged, for example truncated.
    """
    try:
        return read(path)
    except FileNotFoundError as error:
        raise damaged(path, "it is missing") from error
    except ValueError as error:  # JSON, UTF-8, a number of thousands of digits
        raise damaged(path, error) from error


def read_record(kind: type[T], path: Path) -> T:
    """A JSON file of a run as ``kind``; see `validated`."""
    return validated(kind, read_whole(read_json, path), path)


def validated(kind: type[T], value: Any, path: Path) -> T:
    """A JSON value of a file of a run as ``kind``: a pydantic model, a dataclass, or a type such as ``list[str]``.

    Raises:
        UserError: a field is missing, unknown or of another type; the sentence names the file and the first such field.
    """
    # The cast is for mypy, to which the class of an unhashable instance is not hashable.
    adapter: TypeAdapter[T] = _adapter(cast("Hashable", kind))
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] in UNKNOWN:
            raise UserError(
                f"{path} holds {field}, a field that this version does not know; use the version that wrote it, or another --runs folder"
            ) from error
        message = first["msg"][0].lower() + first["msg"][1:]
        raise damaged(path, f"{field}: {message}" if field else message) from error


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """The validator of a kind, which takes longer to build than to use."""
    return TypeAdapter(kind)


def check_listed(listing: Path, *files: Path) -> None:
    """Check files of a folder against the manifest in it; a folder of an older version has none.

    Raises:
        UserError: a file is not what it was when the manifest was written.
    """
    manifest = read_manifest(listing)
    if manifest is None:
        return
    for file in files:
        if (wrong := manifest.problem(file)) is not None:
            raise damaged(file, wrong, folder=listing.parent)


def checked_path(listing: Path, name: str) -> Path:
    """The path of a file beside a manifest: as that says, or absent and not listed.

    Raises:
        UserError: it is neither.
    """
    path, manifest = listing.parent / name, read_manifest(listing)
    if path.exists() or (manifest is not None and name in manifest.files):
        check_listed(listing, path)
    return path


def check_complete(listing: Path) -> None:
    """Check that all files that a folder's manifest lists are there with their sizes, and that no record was changed.

    Raises:
        UserError: one is missing or was changed.
    """
    manifest = read_manifest(listing)
    if manifest is not None and (found := manifest.first_problem()) is not None:
        file, wrong = found
        raise damaged(file, wrong, folder=listing.parent)


def read_manifest(path: Path) -> Manifest | None:
    """The manifest that a file holds; None for a file that is absent or empty, as older versions wrote it."""
    return read_whole(Manifest.read, path)


class DamagedError(UserError):
    """A file of a run is not what it was.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, sentence: str, path: Path, reason: object) -> None:
        super().__init__(sentence)
        self.path, self.reason = path, reason


def damaged(path: Path, reason: object, folder: Path | None = None) -> DamagedError:
    """The sentence about a file of a run that is not what it was.

    Args:
        path: the file.
        reason: what is wrong with it.
        folder: what has to be made again without a whole copy of it; None means the file's own folder.
    """
    advice = f"replace it with an intact copy, or move {folder or path.parent} away and run the `bench run` or `bench eval` command again"
    return DamagedError(f"{path} is damaged ({reason}); {advice}", path, reason)
