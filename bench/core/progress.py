"""Progress with rate and time left: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

PLAIN_SECONDS = 10.0


class Progress:
    """Counts work done out of ``total`` and shows rate, time left and the latest figures.

    Use as a context manager.  On a terminal it draws one live bar on standard error; elsewhere it prints a line at the start,
    every `PLAIN_SECONDS`, and at the end.
    """

    def __init__(self, title: str, *, total: int, done: int = 0) -> None:
        self._title, self._total, self._done, self._first = title, total, done, done
        # of several processes only the first speaks; the launcher numbers them before anything of ours runs
        self._silent = os.environ.get("RANK", "0") != "0"
        self._console = Console(stderr=True)
        self._bar: RichProgress | None = None
        self._figures = ""
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        self._started = self._printed = time.monotonic()
        if self._console.is_terminal and not self._silent:
            self._bar = RichProgress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(), TextColumn("{task.fields[figures]}"), console=self._console,
            )  # fmt: skip
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done, rate="", figures="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        else:
            self._print()

    def advance(self, count: int = 1, **figures: float) -> None:
        """Report ``count`` more pieces of work and the latest figures."""
        self.reach(self._done + count, **figures)

    def reach(self, done: int, **figures: float) -> None:
        """Report how much work is done in all, and the latest figures."""
        self._done = done
        if figures:
            self._figures = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self._bar:
            self._bar.update(self._task, completed=self._done, rate=f"{self._rate():.1f}/s", figures=self._figures)
        elif time.monotonic() - self._printed > PLAIN_SECONDS:
            self._print()

    def _rate(self) -> float:
        return (self._done - self._first) / max(1e-9, time.monotonic() - self._started)

    def _print(self) -> None:
        if self._silent:
            return
        self._printed = time.monotonic()
        rate = self._rate()
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate else "time left unknown"
        line = f"{self._title}: {self._done}/{self._total}  {rate:.1f}/s  {left}  {self._figures}"
        sys.stderr.write(line.rstrip() + "\n")
        sys.stderr.flush()
