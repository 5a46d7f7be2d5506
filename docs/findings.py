"""The tables and the picture of docs/findings.md, from the runs that its commands make.

    python docs/findings.py runs

prints the tables, and below them the line that says under which signatures they were measured, and writes docs/findings.png.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.core.errors import UserError
from reports.citation import citation
from reports.records import Records, RunRecord, collect
from reports.seed_variance import Array
from reports.statistics import Interval, mean_intervals, share_intervals, win_indicator
from reports.table import build_report

ALONG = {
    "dpo": {50: "steps-50", 100: "recipe", 200: "steps-200"},
    "sft": {40: "steps-40", 80: "recipe", 160: "steps-160", 267: "forwards-25600"},
}
"""By algorithm and training steps, the name of the run; more steps continue exactly what fewer have done."""

FLIPPED = {0: "recipe", 10: "flipped-10", 20: "flipped-20", 40: "flipped-40"}
"""By percentage of flipped votes, the name of the run."""

BUDGET = {"dpo": "recipe", "sft": "forwards-25600", "smpo": "forwards-25600"}
"""By algorithm, the name of the run that costs 25,600 forwards, which is what dpo's recipe costs."""

COLUMNS = ("gold", "gold, mean difference", "proxies")
COLOURS = {"dpo": "#0072b2", "sft": "#d55e00"}


class Findings:
    """Win rates of every row of some records, in per cent."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.rows = {(row.algorithm, row.name): row for row in records.rows}
        self.costs = {(row.algorithm, row.name): row.cost for row in build_report(records).rows}

    def row(self, algorithm: str, name: str) -> RunRecord:
        """The runs of one name."""
        if (algorithm, name) not in self.rows:
            raise UserError(f"there are no finished runs {algorithm}/{name}; docs/findings.md has the commands")
        return self.rows[algorithm, name]

    def wins(self, row: RunRecord, metric: str) -> Array:
        """1 where an image is better than the base's, (seeds, prompts, images)."""
        return win_indicator(row.scores[metric], self.records.base.scores[metric][0])

    def gold(self, algorithm: str, name: str) -> Interval:
        """Win rate of the true utility."""
        return _percent(*share_intervals([self.wins(self.row(algorithm, name), "gold")]))

    def utility(self, algorithm: str, name: str) -> str:
        """Mean difference of the true utility to the base, with its interval."""
        scores, base = self.row(algorithm, name).scores["gold"], self.records.base.scores["gold"][0]
        (change,) = mean_intervals([scores - base])
        return f"{change.mean:+.3f} ± {change.high - change.mean:.3f}"

    def proxies(self, algorithm: str, name: str) -> Interval:
        """Win rate averaged over the reward models that the algorithm did not train on."""
        row = self.row(algorithm, name)
        names = [each.name for each in self.records.metrics if each.name != "gold" and each.name not in row.trained_on]
        return _percent(*share_intervals([np.asarray(np.mean([self.wins(row, each) for each in names], axis=0))]))

    def forwards(self, algorithm: str, name: str) -> str:
        """Network forwards of one run; a backward counts as two."""
        ledgers = self.row(algorithm, name).ledgers
        each = [one["policy_forwards"] + 2 * one["policy_backwards"] + one["reference_forwards"] for one in ledgers]
        return f"{sum(each) / len(each):,.0f}"

    def steps(self, algorithm: str, name: str) -> str:
        """Optimizer steps of one run."""
        counts = sorted({len(steps) for steps in self.row(algorithm, name).steps})
        return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))


def along(found: Findings) -> str:
    """Gold and proxies by training steps."""
    rows = [
        [f"`{algorithm}`", f"{steps}", *_columns(found, algorithm, name)]
        for algorithm, names in ALONG.items()
        for steps, name in names.items()
    ]
    return _table(["", "steps", *COLUMNS], rows)


def flipped(found: Findings) -> str:
    """Gold and proxies by share of flipped votes."""
    rows = [
        [f"`{algorithm}`", f"{share} %", *_columns(found, algorithm, name)]
        for algorithm in ("dpo", "sft")
        for share, name in FLIPPED.items()
    ]
    return _table(["", "votes flipped", *COLUMNS], rows)


def budget(found: Findings) -> str:
    """Gold and proxies at one cost."""
    rows = [
        [
            f"`{algorithm}`",
            found.steps(algorithm, name),
            found.forwards(algorithm, name),
            *_columns(found, algorithm, name),
        ]
        for algorithm, name in BUDGET.items()
    ]
    return _table(["", "steps", "forwards", *COLUMNS], rows)


def draw(found: Findings, path: Path) -> None:
    """Gold along training, beside gold by share of flipped votes."""
    figure = Figure(figsize=(9, 3.6), dpi=144, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for algorithm, names in ALONG.items():
        gold = [found.gold(algorithm, name) for name in names.values()]
        _line(left, list(names), gold, algorithm)
        left.plot(list(names), [found.proxies(algorithm, name).mean for name in names.values()],
                  linestyle=":", marker=".", color=COLOURS[algorithm])  # fmt: skip
    left.set_xscale("log")
    ticks = sorted({steps for names in ALONG.values() for steps in names})
    left.set_xticks(ticks, [str(steps) for steps in ticks])
    left.minorticks_off()
    left.set_xlabel("training steps")
    left.set_ylabel("win rate against the base, %")
    left.set_title("gold (solid) and proxies (dotted) along training", fontsize=10)
    for place, algorithm in enumerate(("dpo", "sft")):
        gold = [found.gold(algorithm, name) for name in FLIPPED.values()]
        _line(right, [share + place - 0.5 for share in FLIPPED], gold, algorithm)
    right.set_xlabel("votes flipped, %")
    right.set_title("gold as votes get noisier", fontsize=10)
    for axes in (left, right):
        axes.axhline(50, color="black", linewidth=0.8, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})


def _line(axes: Axes, places: Sequence[float], intervals: Sequence[Interval], label: str) -> None:
    means = [each.mean for each in intervals]
    spread = [[each.mean - each.low for each in intervals], [each.high - each.mean for each in intervals]]
    axes.errorbar(places, means, spread, color=COLOURS[label], marker="o", capsize=2, label=label)


def _columns(found: Findings, algorithm: str, name: str) -> tuple[str, str, str]:
    gold, proxies = found.gold(algorithm, name), found.proxies(algorithm, name)
    return _cell(gold), found.utility(algorithm, name), _cell(proxies)


def _percent(share: Interval) -> Interval:
    return Interval(100 * share.mean, 100 * max(0.0, share.low), 100 * min(1.0, share.high), share.level)


def _cell(rate: Interval) -> str:
    return f"{rate.mean:.1f} [{rate.low:.1f}, {rate.high:.1f}]"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, [":--", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    records = collect(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
    found = Findings(records)
    sys.stdout.write("\n".join((along(found), flipped(found), budget(found), f"{citation(build_report(records))}\n")))
    draw(found, Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
