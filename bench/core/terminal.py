"""The terminal, to which everything is printed by one class: no text that it is given speaks to the terminal itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from bench.core.escaping import visible

COLUMNS = 80
"""Width of sentences and of plain lines."""
TABLE_COLUMNS = 160
"""Width of tables if the output is not a terminal."""


class Terminal(Console):
    """A console of rich that shows control characters instead of sending them, and knows no names of emoji.

    Its strings may have markup of rich; texts from elsewhere go through `rich.markup.escape` or are `rich.text.Text`.

    Args:
        settings: those of `rich.console.Console`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(emoji=False, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich renders it; escape sequences are only those of styles, which rich adds afterwards."""
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                yield Segment(visible(segment.text, keep="\n"), segment.style)


def table_terminal() -> Terminal:
    """Standard output for a table, which is as wide as the terminal, or `TABLE_COLUMNS` where there is none."""
    console = Terminal()
    return console if console.is_terminal else Terminal(width=TABLE_COLUMNS)
