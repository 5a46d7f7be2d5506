"""Validation by pydantic models, with one sentence about the first error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bench.core.errors import UserError

S = TypeVar("S", bound=BaseModel)


def build(kind: type[S], values: Mapping[str, Any], name: str) -> S:
    """Validate values into the pydantic model ``kind``.

    Args:
        name: what the values are for; the error message begins with it.

    Raises:
        UserError: one sentence about the first value that is not allowed.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        what = f"{field}={first['input']!r} is not allowed: {first['msg'].lower()}" if field else first["msg"]
        raise UserError(f"{name}: {what}") from error
