"""Progress with rate and time left: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.text import Text

from bench.core import escaping, ranks
from bench.core.terminal import COLUMNS, Terminal

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 60.0
"""Seconds between plain lines: a tenth of the time so far, within these; so a day of training does not fill its log."""
SHORTEST_TITLE = 16

_PART: ContextVar[str] = ContextVar("part", default="")


@contextlib.contextmanager
def part_of(whole: str) -> Iterator[None]:
    """Put ``whole``, for example ``run 2 of 4``, before the title of every progress display in the block."""
    token = _PART.set(f"{whole}: ")
    try:
        yield
    finally:
        _PART.reset(token)


_HIDDEN: ContextVar[bool] = ContextVar("hidden progress", default=False)


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """Show no progress inside the block, for work that takes about a second."""
    token = _HIDDEN.set(True)
    try:
        yield
    finally:
        _HIDDEN.reset(token)


class Progress:
    """Counts work done out of ``total`` and shows rate, time left and the latest figures.

    Use as a context manager.  On a terminal it draws one live line on standard error; elsewhere it prints a line now and then,
    and one at the end.  If everything was done already, it shows nothing.

    Args:
        title: what is done.
        total: pieces of work overall.
        done: pieces that were done already.
    """

    def __init__(self, title: str, *, total: int, done: int = 0) -> None:
        self._title, self._total, self._done, self._found = _PART.get() + escaping.line(title), total, done, done
        # only the first process prints; the launcher sets RANK before this program starts
        self._silent = _HIDDEN.get() or ranks.rank() != 0
        self._console = Terminal(stderr=True)
        self._live: Live | None = None
        self._figures: list[str] = []
        self._expected: tuple[float, float] | None = None
        self._started = self._printed = time.monotonic()
        self._shown = ""

    def __enter__(self) -> Self:
        self._started = self._printed = time.monotonic()
        if self._console.is_terminal and not self._silent and self._done < self._total:
            self._live = self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.transient = self._done == self._found  # erases the line
            self._live.stop()
        elif self._done > self._found:
            self._print()

    def found(self, count: int) -> None:
        """Report ``count`` pieces that were done already: they count as done, but not towards the rate."""
        self._found += count
        self._done += count

    def expect(self, each: float, left: float) -> None:
        """Show a rate and a time left that the caller knows better than the time so far tells.

        Args:
            each: seconds that a piece takes.
            left: seconds until everything is done; 0 if nobody can tell.
        """
        self._expected = each, left

    def advance(self, count: int = 1, **figures: float) -> None:
        """Report ``count`` more pieces of work and the latest figures."""
        self.reach(self._done + count, **figures)

    def reach(self, done: int, **figures: float) -> None:
        """Report how much work is done overall, and the latest figures."""
        self._done = done
        if figures:
            self._figures = [f"{name} {value:.4g}" for name, value in figures.items()]
        pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, self._seconds() / 10))
        if self._live is None and time.monotonic() - self._printed > pause:
            self._print()

    def _start(self) -> Live:
        # one column less than the width, since terminals differ in when they wrap the last one
        def drawn() -> Text:
            return Text(line(self._title, self._facts(), self._console.width - 1), no_wrap=True, overflow="crop")

        live = Live(console=self._console, get_renderable=drawn)
        live.start()
        return live

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _facts(self) -> list[str]:
        counts = f"{self._done}/{self._total}"
        worked, seconds = self._done - self._found, max(1e-9, self._seconds())
        if worked <= 0:
            return [counts, *self._figures]
        each, left = self._expected or (seconds / worked, (self._total - self._done) * seconds / worked)
        rate = f"{each:.1f} s each" if each > 1 else f"{1 / max(1e-9, each):.1f}/s"
        if self._done >= self._total:
            return [counts, f"in {duration(seconds)}", rate, *self._figures]
        return [counts, *([f"{duration(left)} left"] if left else []), rate, *self._figures]

    def _print(self) -> None:
        self._printed = time.monotonic()
        counts = f"{self._done}/{self._total}"
        if self._silent or self._shown == counts:
            return
        self._shown = counts
        sys.stderr.write(line(self._title, self._facts(), COLUMNS) + "\n")
        sys.stderr.flush()


def say(sentence: str) -> None:
    """Print a sentence on standard error, with the part of the whole before it; silent where progress is hidden."""
    if not _HIDDEN.get() and ranks.rank() == 0:
        sys.stderr.write(f"{_PART.get()}{escaping.line(sentence)}\n")
        sys.stderr.flush()


def line(title: str, facts: Sequence[str], width: int) -> str:
    """A title and as many of the facts as fit beside it, in order, in at most ``width`` columns.

    A title that is too long is shortened in the middle, but facts go before it is shorter than `SHORTEST_TITLE`.
    """
    title_width = min(len(title), SHORTEST_TITLE)
    kept = ""
    for fact in facts:
        if title_width + len(kept) + 2 + len(fact) > width:
            break
        kept += f"  {fact}"
    return (shortened(title, max(0, width - len(kept))) + kept)[:width]


def shortened(text: str, width: int) -> str:
    """A text of at most ``width`` characters; the excess is cut from the middle."""
    if len(text) <= width:
        return text
    kept = max(0, width - 3)
    head = (kept + 1) // 2
    return (text[:head] + "..." + text[len(text) - (kept - head) :])[:width]


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours: ``95 s``, ``12 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
