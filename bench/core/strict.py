"""Text and JSON from anywhere: read strictly, with one sentence that says where and why not."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.inputs import read_bytes

SHOWN = 60
"""Characters of a value that a sentence quotes."""


def exists(path: Path) -> bool:
    """Whether there is something at a path; what is longer than a path may be does not exist."""
    try:
        return path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def read_utf8(path: Path) -> str:
    """The text of a file in UTF-8, without its byte order mark.

    Raises:
        UserError: the file cannot be opened, or is in another encoding; the sentence names line and byte.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file that you may read") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: line {line} holds the byte 0x{content[error.start]:02x}, which is not UTF-8; save the file as UTF-8"
        ) from error


def parse_json(text: str, where: str) -> Any:
    """A JSON value in which no field occurs twice.

    Args:
        text: what to parse.
        where: file, and line if it has several values; the sentence begins with it.

    Raises:
        UserError: it is not JSON, or nested too deeply, or a number is too long, or a field occurs twice.
    """
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _distinct(pairs, where))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where} is not valid JSON ({error.msg}, character {error.pos + 1}); write it again"
        ) from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply; write plain values") from error
    except ValueError as error:  # an integer of thousands of digits
        raise UserError(f"{where} holds a number that is too long; write a shorter one") from error


def read_json_strictly(path: Path) -> Any:
    """The JSON value of a file; see `read_utf8` and `parse_json`."""
    return parse_json(read_utf8(path), str(path))


def quoted(value: object) -> str:
    """A value as a sentence shows it: short, and nothing in it moves a terminal's cursor."""
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def check_characters(text: str, where: str) -> None:
    """Raise a `UserError` for half of a surrogate pair, which no encoding can write.

    Args:
        text: what to check.
        where: file, row and column; the sentence begins with it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: {quoted(text)} holds half of a surrogate pair at character {error.start + 1}; write the whole character"
        ) from error


def check_encoding(path: str) -> str:
    """A path as Python has it, where a byte that is not UTF-8 is half of a surrogate pair.

    Raises:
        UserError: it has such a byte, which no record can hold.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path!a} is not a UTF-8 name; rename it") from error
    return path


def _distinct(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{where} has the field {quoted(twice)} twice; keep one of them")
    return fields
