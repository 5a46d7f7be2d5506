"""Records of scores that an earlier call left, looked at before they are used: they may be damaged, or somebody else's.

Beside the scoring loop, since what that imports belongs to the signature of every metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.files import from_json
from bench.core.inputs import read_text


def read_records(path: Path, fields: Sequence[str], advice: str) -> list[dict[str, Any]]:
    """The lines of a records file, see `bench.scoring.loop.score_images`; a last line that a crash cut short is left out.

    Args:
        path: the file, which need not exist.
        fields: what every line has besides ``metric``, ``score`` and ``signature``.
        advice: what to do if a line is not a record.

    Raises:
        UserError: the file holds something else, or is damaged; the sentence names it and the line.
    """
    if not path.exists():
        return []
    try:
        text = read_text(path)
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise UserError(f"{path} holds no records of scores ({error}); {advice}") from error
    records = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].split("\n"), start=1):
        if line:
            try:
                records.append(_record_of(from_json(line), fields))
            except ValueError as error:
                raise UserError(f"{path}: line {number} is not the record of a score ({error}); {advice}") from error
    return records


def _record_of(value: Any, fields: Sequence[str]) -> dict[str, Any]:
    """A JSON value as a record; a `ValueError` says what it lacks."""
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 (reported like a line that is not JSON)
    if missing := [field for field in (*fields, "metric", "score", "signature") if field not in value]:
        raise ValueError(f"it has no {missing[0]!r}")
    texts = all(isinstance(value[field], str) for field in ("metric", "signature"))
    keys, score = all(isinstance(value[field], str | int) for field in fields), value["score"]
    if (
        not texts
        or not keys
        or isinstance(score, bool)
        or not isinstance(score, int | float)
        or not math.isfinite(score)
    ):
        raise ValueError("a value is of another kind")
    return value
