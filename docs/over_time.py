"""What the judges said along the training of some runs: the figure of docs/findings-online.md, and its table.

python docs/over_time.py runs-online-curves docs/over-time.png
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import stdtrit

from bench.core.files import replace_file
from bench.records.curve import CurveLine, CurveRecord, find, series
from bench.records.runs import find_runs

COLOURS = {
    "gold": "#d55e00",
    "pickscore": "#0072b2",
    "hpsv2": "#56b4e9",
    "imagereward": "#009e73",
    "aesthetic": "#cc79a7",
}
Watched = tuple[str, CurveRecord, list[CurveLine]]


def watched(runs: Path) -> list[Watched]:
    """The runs that were measured while they trained, by what tables call them."""
    curves = [(run.title, run.curve()) for run in find_runs(runs)]
    return [(title, *curve) for title, curve in curves if curve is not None]


def change(record: CurveRecord, lines: list[CurveLine], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The change of a judge's mean since before the training, and half its 95 % interval over the prompts.

    In standard deviations of the judge's scores of single images before the training; float64, (lines,) each.
    """
    values = series(record, lines, name)
    moved = (values - values[0]) / np.std(lines[0]["scores"][name], ddof=1)
    half = stdtrit(moved.shape[1] - 1, 0.975) * moved.std(axis=1, ddof=1) / moved.shape[1] ** 0.5
    return moved.mean(axis=1), half


def figure(runs: list[Watched]) -> Figure:
    """A panel for each run; the judge that it trains on is dashed."""
    drawn = Figure(figsize=(4.2 * len(runs), 3.2), dpi=144, layout="constrained")
    panels = drawn.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for axes, (title, record, lines) in zip(panels, runs, strict=True):
        steps = [line["step"] for line in lines]
        for name, judge in record.titles.items():
            mean, half = change(record, lines, name)
            trained = name in record.trained_on
            label = f"{judge} (trained on)" if trained else judge
            axes.plot(steps, mean, color=COLOURS[name], linestyle="--" if trained else "-", linewidth=2, label=label)
            axes.fill_between(steps, mean - half, mean + half, color=COLOURS[name], alpha=0.12, linewidth=0)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("steps")
        axes.legend(frameon=False, fontsize=7)
    panels[0].set_ylabel("change, in standard deviations\nof base images")
    return drawn


def table(runs: list[Watched]) -> Iterator[str]:
    """The same changes in Markdown, with what `bench report` says of each run."""
    titles = list(dict.fromkeys(title for _, record, _ in runs for title in record.titles.values()))
    for label, record, lines in runs:
        yield f"**{label}**: {find(record, lines).sentence()}"
        yield ""
        yield f"| step | {' | '.join(titles)} |"
        yield f"| --: |{' --: |' * len(titles)}"
        changes = {judge: change(record, lines, name) for name, judge in record.titles.items()}
        for place, line in enumerate(lines[1:], 1):
            moved = ((changes[title][0][place], changes[title][1][place]) for title in titles)
            yield f"| {line['step']} | {' | '.join(f'{mean:+.2f} ± {half:.2f}' for mean, half in moved)} |"
        yield ""


def main() -> None:
    runs = watched(Path(sys.argv[1]))
    if not runs:
        sys.exit(f"no run in {sys.argv[1]} was measured while it trained; see --evaluate-every in: bench run --help")
    with mpl.rc_context(
        {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}
    ):
        drawn = figure(runs)
        replace_file(
            Path(sys.argv[2]), lambda partial: drawn.savefig(partial, format="png", metadata={"Software": None})
        )
    sys.stdout.write("".join(f"{line}\n" for line in table(runs)))


if __name__ == "__main__":
    main()
