"""What each column of preference data must hold, whatever layout it comes in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
from pyarrow import types

from bench.core.errors import UserError
from bench.core.parquet import is_text, plain_type
from bench.core.strict import quoted

Kind = Callable[[pa.DataType], bool]


@dataclasses.dataclass(frozen=True)
class Role:
    """What columns of some names hold.

    Attributes:
        names: their names under Pick-a-Pic's, a regular expression.
        expected: what they hold, in words.
        fits: whether a type of Arrow does.
    """

    names: re.Pattern[str]
    expected: str
    fits: Kind


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes."""
    checks = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_score(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _is_image(kind: pa.DataType) -> bool:
    if not types.is_struct(kind):
        return is_bytes(kind) or is_text(kind) or types.is_null(kind)
    fields = {field.name: field.type for field in kind}
    if any(types.is_binary_view(each) or types.is_string_view(each) for each in fields.values()):
        return False  # Arrow cannot choose among rows of these
    fits = {"bytes": is_bytes, "path": is_text}
    return (
        len(fields) == kind.num_fields
        and bool(fields.keys() & fits.keys())
        and all(types.is_null(fields[name]) or check(fields[name]) for name, check in fits.items() if name in fields)
    )


def _is_name(kind: pa.DataType) -> bool:
    return is_text(kind) or types.is_integer(kind) or types.is_null(kind)


ROLES = (
    Role(re.compile("caption"), "text", is_text),
    Role(re.compile(r"jpg_\d+"), "images: bytes, paths, or structs of both", _is_image),
    Role(re.compile(r"label_[01]"), "numbers: 0, 0.5 or 1", _is_number),
    Role(re.compile(r"(source|model)_\d+|split"), "text", _is_name),
    Role(re.compile(r"score_.+_\d+"), "numbers", _is_score),
)
"""Columns that are read; others may hold anything."""


def check_types(kinds: Sequence[tuple[str, pa.DataType]], where: object, spelled: Mapping[str, str]) -> None:
    """Check the types of the columns of a file that will be read.

    Args:
        kinds: names and types of its columns; names are Pick-a-Pic's.
        where: the file; the sentence begins with it.
        spelled: the columns' names in the file, where they differ.

    Raises:
        UserError: a column holds something else than its name says, or of numbered columns one is missing.
    """
    for name, kind in kinds:
        value = plain_type(kind)
        role = next((role for role in ROLES if role.names.fullmatch(name)), None)
        if role is not None and not role.fits(value):
            raise UserError(
                f"{where}: column {spelled.get(name, name)!r} must hold {role.expected}, but holds {quoted(str(value))[1:-1]}; convert it, or "
                "name another column with --columns"
            )
    _refuse_gaps([name for name, _ in kinds], where)


def _refuse_gaps(names: Sequence[str], where: object) -> None:
    """An image that no caption would ever be compared by, such as ``jpg_3`` beside ``jpg_0`` and ``jpg_1``."""
    numbers = sorted(int(name.removeprefix("jpg_")) for name in names if re.fullmatch(r"jpg_[0-9]{1,6}", name))
    for place, number in enumerate(numbers):
        if number != place > 0:  # without the first, the column is missing
            raise UserError(
                f"{where} has a column 'jpg_{number}' but none called 'jpg_{place}'; number the images from 0, or rename the "
                "columns with --columns"
            )
