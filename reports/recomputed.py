"""Whether a stored report is the one that its runs make, wherever and by whichever version it was computed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from bench.records.migrations import that_count

RELATIVE = 1e-9
"""Floats this close are one number: other versions of numpy and scipy, and other processors, round the last digits differently."""
ABSOLUTE = 1e-12
"""Floats this close to each other are one number near zero, where nothing is left but rounding."""
WORDED = re.compile(r"(settings|notes|rows\.\d+\.panel\.findings)(\.\d+)?")
"""Fields of sentences, which another version may word differently."""
TRAINING = ".settings.training"
"""Where a row has the settings of its training."""
_VERSION = re.compile(r"bench (\S{1,40}) \| ")

Difference = tuple[str, str]
"""Dotted name of a field, and what is wrong with it."""


def version_of(report: Any) -> str | None:
    """The version of the package that made a report, parsed JSON of any kind, by its citation line; None if it has none."""
    line = report.get("citation") if isinstance(report, dict) else None
    found = _VERSION.match(line) if isinstance(line, str) else None
    return found[1] if found else None


def first_difference(stored: Any, made: Any) -> str | None:
    """The first field in which a stored report is not the one that its runs make, with what is wrong; None if it is.

    Everything that is stored must be made again, floats within `RELATIVE`.  A report of another version may lack fields that this
    version adds, and word its sentences differently.

    Args:
        stored: the stored report, parsed JSON of any kind.
        made: the report that the runs make here, parsed JSON.
    """
    if version_of(stored) is None:
        return "citation (it names no version)"
    changed = _changed(_without_version(stored), _without_version(made), "")
    if version_of(stored) == version_of(made):
        found = next(changed, None) or next(_missing(stored, made, ""), None)
    else:
        found = next((each for each in changed if not WORDED.fullmatch(each[0])), None)
    return found and f"{found[0]} ({found[1]})"


def _without_version(report: Any) -> Any:
    """The report without the version in its citation line."""
    if version_of(report) is None:
        return report
    return {**report, "citation": _VERSION.sub("", report["citation"], count=1)}


def _changed(stored: Any, made: Any, path: str) -> Iterator[Difference]:
    """What is stored and not made so."""
    if isinstance(stored, dict) and isinstance(made, dict):
        for name, value in stored.items():
            if name in made:
                yield from _changed(value, made[name], _join(path, name))
            else:
                yield _join(path, name), "this version does not make it"
    elif isinstance(stored, list) and isinstance(made, list) and len(stored) == len(made):
        for place, (one, other) in enumerate(zip(stored, made, strict=True)):
            yield from _changed(one, other, _join(path, place))
    elif not _same(stored, made):
        yield path, f"{_shown(stored)} and {_shown(made)}"


def _missing(stored: Any, made: Any, path: str) -> Iterator[Difference]:
    """What is made and not stored, in two reports that agree in what is stored."""
    if isinstance(made, dict):
        absent = {name: value for name, value in made.items() if name not in stored}
        counted = that_count(absent) if path.endswith(TRAINING) else absent
        yield from ((_join(path, name), "it is missing") for name in counted)
    inner = made.items() if isinstance(made, dict) else enumerate(made) if isinstance(made, list) else ()
    for name, value in inner:
        if not isinstance(made, dict) or name in stored:
            yield from _missing(stored[name], value, _join(path, name))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(one) is type(other) and bool(one == other)


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return repr(value)


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
