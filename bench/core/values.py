"""JSON values: their digest, and where two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def canonical(value: Any) -> str:
    """A JSON value in its one form: sorted keys, no spaces.

    Raises:
        TypeError: the value holds something other than JSON values.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value as `canonical`, shortened to 12 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:12]


def digest_of_items(items: Iterable[Any]) -> str:
    """The `digest` of a list of these JSON values, of which one is in memory at a time."""
    hashed = hashlib.sha256(b"[")
    for place, item in enumerate(items):
        hashed.update(("," * bool(place) + canonical(item)).encode())
    hashed.update(b"]")
    return hashed.hexdigest()[:12]


def differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Dotted names of the fields in which two JSON values differ, with both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted({*one, *other})
            for line in differing(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if one == other else [f"{path} ({one!r} and {other!r})"]
