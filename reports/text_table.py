"""Tables of text, which terminal, Markdown, LaTeX and HTML render each in its own notation."""

from __future__ import annotations

import dataclasses
import enum

from reports.adjustment import stands_out
from reports.statistics import Interval


class Verdict(enum.Enum):
    """What a comparison says after adjustment: see `reports.adjustment`."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its value, a detail such as its interval, and whether it is marked."""

    value: str
    detail: str = ""
    verdict: Verdict = Verdict.OPEN


@dataclasses.dataclass(frozen=True, slots=True)
class TextTable:
    """A table of text; the first column names the rows.

    Attributes:
        title: its title.
        kind: what it is about, whatever its title says of one report; LaTeX's label.
        columns: headings of the cells.
        rows: names of the rows with their cells.
        notes: what its columns mean, one sentence per line, shown right below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()
    kind: str = dataclasses.field(kw_only=True)


DASH = Cell("-")


def rate_cell(rate: Interval | None, dagger: str = "") -> Cell:
    """A win rate in per cent with its interval."""
    if rate is None:
        return DASH
    value = f"{100 * rate.mean:.1f}{dagger}"
    detail = "" if rate.ends is None else f"[{100 * rate.ends[0]:.1f}, {100 * rate.ends[1]:.1f}]"
    return Cell(value, detail, verdict(rate, 0.5))


def plus_minus(interval: Interval, decimals: int, factor: float = 1) -> str:
    """Half of an interval in text, times a factor; empty where there is none."""
    return "" if interval.half is None else f"± {factor * interval.half:.{decimals}f}"


def verdict(interval: Interval | None, null: float, *, higher_is_better: bool = True) -> Verdict:
    """Whether a comparison is marked as better or worse than ``null`` after adjustment."""
    if interval is None or not stands_out(interval):
        return Verdict.OPEN
    return Verdict.BETTER if (interval.mean > null) == higher_is_better else Verdict.WORSE
