"""JSON values: their digest, and where two of them differ."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces), shortened to 12 hex digits.

    Raises:
        TypeError: the value holds something other than JSON values.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Dotted names of the fields in which two JSON values differ, with both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted({*one, *other})
            for line in differing(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if one == other else [f"{path} ({one!r} and {other!r})"]
