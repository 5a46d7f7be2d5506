"""Sentences for the user on standard error: notes, errors, and what was done."""

from __future__ import annotations

import textwrap

from rich.text import Text

from bench.core.escaping import visible
from bench.core.terminal import COLUMNS, Terminal


def say(sentence: str, label: str = "", style: str = "") -> None:
    """Print a sentence; on a terminal it is wrapped between words, elsewhere it stays on one line, which programs can search.

    Args:
        sentence: what to print; a line end in it, for example of a file's name, does not begin a line.
        label: a word before it, with a colon.
        style: the label's, as rich has it.
    """
    console = Terminal(stderr=True)
    plain = visible(sentence)
    whole = f"{label}: {plain}" if label else plain
    if console.is_terminal:
        width = min(COLUMNS, console.width)
        lines = [
            textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in whole.split("\n")
        ]
        whole = "\n".join("\n".join(line) for line in lines)
    text = Text(whole)
    if label:
        text.stylize(style, 0, len(label) + 1)
    console.print(text, highlight=False, soft_wrap=True)
