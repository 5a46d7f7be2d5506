"""What methods gain on true and on shuffled preferences, with intervals widened for the number of methods: a table of docs/placebo.md.

python docs/placebo_gains.py runs-placebo dpo inpo ipo
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.core.errors import UserError
from reports.conclusions import placebo_in
from reports.records import RunRecord, collect
from reports.statistics import Interval, mean_intervals

ERROR = 0.05
"""Chance that an interval of a column misses, over all methods that are named (Bonferroni)."""


def gains(runs: Path, algorithms: Sequence[str]) -> dict[str, tuple[Interval, Interval, Interval]]:
    """By row what gold gains over the base on true and on shuffled preferences, and the difference of the two.

    Raises:
        UserError: one of these algorithms has no runs with a placebo, or a placebo has other seeds than its row.
    """
    records = collect(runs)
    rows = [row for row in records.rows if row.algorithm in algorithms]
    found, base = paired(rows), records.base.scores["gold"][0]
    if missing := sorted(set(algorithms) - {row.algorithm for row, _ in found}):
        raise UserError(f"{runs} has no runs of {', '.join(missing)} with their placebos: train them with --placebo")
    if unequal := [row.label for row, placebo in found if row.seeds != placebo.seeds]:
        raise UserError(f"the placebo of {unequal[0]} has other seeds than it; train both with the same")
    level = 1 - ERROR / len(found)
    over_base = mean_intervals([run.scores["gold"] - base for pair in found for run in pair], level=level)
    preferences = mean_intervals([row.scores["gold"] - placebo.scores["gold"] for row, placebo in found], level=level)
    columns = zip(over_base[::2], over_base[1::2], preferences, strict=True)
    return {row.label: each for (row, _), each in zip(found, columns, strict=True)}


def paired(rows: Sequence[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    """The rows that have a placebo among them, each with it."""
    return [(row, placebo) for row in rows if (placebo := placebo_in(rows, row))]


def lines(by_row: dict[str, tuple[Interval, Interval, Interval]]) -> Iterator[str]:
    """A table in Markdown."""
    yield "|  | true preferences | shuffled | true minus shuffled |"
    yield "| :-- | --: | --: | --: |"
    for label, cells in by_row.items():
        yield f"| {label} | {' | '.join(map(cell, cells))} |"


def cell(interval: Interval) -> str:
    """A mean with its interval."""
    ends = "" if interval.ends is None else f" [{interval.ends[0]:+.2f}, {interval.ends[1]:+.2f}]"
    return f"{interval.mean:+.2f}{ends}"


def main(words: Sequence[str]) -> None:
    if len(words) < 2:
        sys.exit("give a folder of runs and the algorithms to compare")
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines(gains(Path(words[0]), words[1:]))))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
