"""Reading the files of a run folder: the error about a damaged one names the first wrong field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bench.core.errors import UserError
from bench.core.files import read_json

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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise damaged(path, error) from error


def read_record(kind: type[T], path: Path) -> T:
    """A JSON file of a run as ``kind``; see `validated`."""
    return validated(kind, read_whole(read_json, path), path)


def validated(kind: type[T], value: Any, path: Path) -> T:
    """A JSON value of a file of a run as ``kind``: a pydantic model, a dataclass, or a type such as ``list[str]``.

    Raises:
        UserError: a field is missing, unknown or of another type; the sentence names the file and the first such field.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] in UNKNOWN:
            raise UserError(
                f"{path} holds {field}, a field that this version does not know; use the version that wrote it, or another --runs folder"
            ) from error
        message = first["msg"][0].lower() + first["msg"][1:]
        raise damaged(path, f"{field}: {message}" if field else message) from error


def damaged(path: Path, reason: object) -> UserError:
    """The sentence about a file of a run that cannot be read."""
    return UserError(
        f"{path} is damaged ({reason}); replace it with an intact copy, or move {path.parent} away and run the `bench run` command again"
    )
