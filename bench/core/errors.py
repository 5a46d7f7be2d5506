"""Two tiers of errors: what the user can fix is one sentence; everything else keeps its traceback."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

MOST_LISTED = 20
"""Names that a sentence lists."""
LONGEST = 200
"""Characters of the longest of them that is shown whole."""


class UserError(Exception):
    """Something the user can fix: printed as one sentence that says what to do, without traceback, exit code 2."""


def require(module: str, purpose: str, *, extra: str) -> Any:
    """Import an optional module.

    Args:
        module: its dotted name.
        purpose: what needs it; the message begins with it.
        extra: the extra of this distribution that installs it.

    Raises:
        UserError: the package is not installed; the message contains the pip command.  If a module that the package itself imports is
            missing, that error is raised unchanged.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        line = f"pip install 'diffusion-alignment-bench[{extra}]'"
        raise UserError(f"{purpose} needs the package {package!r}, which is not installed: {line}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x' or 'y'? `` for the closest of ``known``, or nothing when none is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""


def nearest_or_all(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the closest of ``known``, or, when none is close, ``there are x, y``."""
    names = list(known)
    return did_you_mean(name, names).rstrip() or f"there are {', '.join(names)}"


def listed(names: Iterable[str], most: int = MOST_LISTED) -> str:
    """Names as a sentence lists them, for example those in a file, which may be many and long: ``a, b and 3 more``, or ``none``."""
    known = list(names)
    shown = ", ".join(name if len(name) <= LONGEST else f"{name[:LONGEST]}..." for name in known[:most])
    return f"{shown} and {len(known) - most:,} more" if len(known) > most else shown or "none"
