"""The trials by which the recipes of the tiny model were chosen: the table of docs/tiny-recipes.md.

python docs/sweep.py runs-tiny-sweep
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.records.runs import find_runs
from reports.records import collect
from reports.statistics import Interval, mean_intervals


def trials(runs: Path) -> dict[str, list[tuple[str, Interval]]]:
    """By algorithm its trials: the settings that they changed, and the mean difference of gold from the base."""
    records = collect(runs)
    settings = {(config.algorithm, config.name): config.changed for config in (run.config() for run in find_runs(runs))}
    base = records.base.scores["gold"][0]
    found: dict[str, list[tuple[str, Interval]]] = {}
    for row in records.rows:
        changed = ", ".join(f"{field}={float(value):g}" for field, value in settings[row.algorithm, row.name].items())
        (gain,) = mean_intervals([row.scores["gold"] - base])
        found.setdefault(row.algorithm, []).append((changed, gain))
    return found


HEAD = ["| algorithm | settings | gold, mean difference from the base |", "| :-- | :-- | --: |"]


def table(tried: Mapping[str, Sequence[tuple[str, Interval]]]) -> list[str]:
    """The rows of trials below `HEAD`: by algorithm, the best first and in bold."""
    lines = []
    for algorithm, found in tried.items():
        best = max(gain.mean for _, gain in found)
        for changed, gain in sorted(found, key=lambda trial: -trial[1].mean):
            shown = f"{gain.mean:+.3f} ± {gain.high - gain.mean:.3f}"
            lines.append(f"| `{algorithm}` | {changed} | {f'**{shown}**' if gain.mean == best else shown} |")
    return lines


def main() -> None:
    sys.stdout.write("\n".join([*HEAD, *table(trials(Path(sys.argv[1])))]) + "\n")


if __name__ == "__main__":
    main()
