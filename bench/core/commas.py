r"""Lists in one word of the command line, separated by commas; a comma within a name is written ``\,`` and a backslash before one ``\\``."""

from __future__ import annotations

import re
from collections.abc import Iterable

PIECE = re.compile(r"\\[\\,]|.", re.DOTALL)
"""A comma or a backslash behind a backslash, or any other character."""


def join_commas(names: Iterable[str]) -> str:
    r"""Names as one word, which `split_commas` takes apart again: ``["a", "b, c"]`` is ``"a,b\, c"``."""
    return ",".join(re.sub(r"[\\,]", r"\\\g<0>", name) for name in names)


def split_commas(typed: str) -> list[str]:
    r"""``"a,b\, c"`` as ``["a", "b, c"]``; a backslash in front of anything but a comma or a backslash stays."""
    names = [""]
    for piece in PIECE.findall(typed):
        if piece == ",":
            names.append("")
        else:
            names[-1] += piece[-1]
    return names
