"""Validation by pydantic models, with one sentence about the first error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bench.core.errors import UserError, nearest_or_all

S = TypeVar("S", bound=BaseModel)

REASONS: Mapping[str, str] = {
    "float_parsing": "give a number",
    "float_type": "give a number",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "int_type": "give a whole number",
    "bool_parsing": "give true or false",
    "bool_type": "give true or false",
    "string_type": "give a text, in quotes",
    "dict_type": "give a table, {{ name = value }}",
    "model_type": "give a table, {{ name = value }}",
    "tuple_type": "give a list, [value, value]",
    "too_short": "give {min_length} or more",
}
"""What to do about a value, by pydantic's type of error, where its own message is about Python's types and parsing."""


def build(kind: type[S], values: Mapping[str, Any], name: str) -> S:
    """Validate values into the pydantic model ``kind``.

    Args:
        kind: the model.
        values: its fields by name, as a user typed them.
        name: what the values are for; the error message begins with it.

    Raises:
        UserError: one sentence about the first value that is not allowed.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"{name}: {_sentence(kind, error.errors(include_url=False)[0])}") from error


def reason(error: ErrorDetails) -> str:
    """Why a value is not allowed; of an error that a validator here raised, its own sentence."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] in REASONS:
        return REASONS[error["type"]].format(**error.get("ctx", {}))
    return error["msg"][:1].lower() + error["msg"][1:]


def _sentence(kind: type[BaseModel], error: ErrorDetails) -> str:
    field = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        return f"there is no field {field!r}: {nearest_or_all(field, kind.model_fields)}"
    if field:
        return f"{field}={error['input']!r} is not allowed: {reason(error)}"
    return reason(error)
