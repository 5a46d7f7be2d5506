"""Plots of a report: inline SVG that follows the page's colours, and a sheet of pictures."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.core.errors import UserError
from bench.core.files import replace_file
from reports.pictures import open_picture
from reports.table import Report

_INK = "#010203"
"""Stands for the page's text colour while drawing; the SVG then says ``currentColor``."""

_STYLE: Any = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.alpha": 0.12,
    "grid.color": _INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
_DASHES = ("-", "--", ":", "-.")
_CURVES = {
    "loss": "loss",
    "margin": "margin",
    "accuracy": "implicit accuracy",
    "winner_gap": "winner: policy minus reference error",
    "loser_gap": "loser: policy minus reference error",
}


def win_rate_plot(report: Report) -> str:
    """Win rates against the base with their intervals, a panel for each metric, as SVG; empty where the base stands alone."""
    if len(report.rows) == 1:
        return ""
    with mpl.rc_context(_STYLE):
        return _svg(_draw_win_rates(report))


def training_plot(report: Report) -> str:
    """Training curves of every row, averaged over seeds with the range between them, as SVG; empty without any curve."""
    with mpl.rc_context(_STYLE):
        figure = _draw_training(report)
        return _svg(figure) if figure else ""


def _draw_win_rates(report: Report) -> Figure:
    metrics = sorted(report.metrics, key=lambda metric: metric.name != "gold")
    rows = report.rows[1:]
    columns = min(3, len(metrics))
    lines = -(-len(metrics) // columns)
    figure, panels = _figure(columns, lines, height=0.75 + 0.27 * len(rows), share=True)
    for panel, metric in zip(panels, metrics, strict=False):
        panel.axvline(50, color=_INK, alpha=0.5, linewidth=1)
        for place, row in enumerate(rows):
            score = row.scores.get(metric.name)
            if score is None or score.win_rate is None:
                continue
            rate = score.win_rate
            colour, _ = _style(place)
            panel.plot(
                [100 * rate.low, 100 * rate.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round"
            )
            panel.plot(
                100 * rate.mean,
                place,
                "o",
                color=colour,
                markersize=6,
                fillstyle="none" if score.trained_on else "full",
            )
        names = [f"{row.label}{_dagger(row.scores.get(metric.name))}" for row in rows]
        panel.set_yticks(range(len(rows)), names)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_title(metric.title, fontsize=10, loc="left", fontweight="bold")
        panel.grid(axis="x")
    return figure


def _draw_training(report: Report) -> Figure | None:
    rows = report.rows[1:]
    quantities = [name for name in _CURVES if any(name in row.curves for row in rows)]
    if not quantities:
        return None
    columns = min(3, len(quantities))
    figure, panels = _figure(columns, -(-len(quantities) // columns), height=2.3, share=False)
    for panel, quantity in zip(panels, quantities, strict=False):
        for place, row in enumerate(rows):
            curve = row.curves.get(quantity)
            if curve is None:
                continue
            colour, dash = _style(place)
            panel.plot(curve.pairs, curve.mean, color=colour, linestyle=dash, linewidth=1.5, label=row.label)
            panel.fill_between(curve.pairs, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        panel.set_title(_CURVES[quantity], fontsize=10, loc="left", fontweight="bold")
        panel.set_xlabel("pairs seen")
        panel.grid()
    keys = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(
        keys.values(), keys.keys(), loc="outside lower center", ncols=min(5, len(keys)), frameon=False, labelcolor=_INK
    )
    return figure


def comparison_sheet(report: Report, path: Path, *, prompts: int = 8) -> None:
    """Write a PNG grid of pictures: a row for each prompt, a column for each model.

    Args:
        report: holds the pictures.
        path: the PNG file.
        prompts: how many of the report's prompts, chosen evenly.

    Raises:
        UserError: an image of the runs is missing.
    """
    names, compared = [row.label for row in report.rows], report.comparison.prompts
    chosen = np.unique(np.linspace(0, len(compared) - 1, min(prompts, len(compared))).round().astype(int)).tolist()
    side, left, top, gap = 1.0, 1.6, 0.35, 0.05  # inches
    width, height = left + len(names) * (side + gap), top + len(chosen) * (side + gap)
    with mpl.rc_context({"font.size": 8, "text.parse_math": False}):
        figure = Figure(figsize=(width, height), dpi=128)
        for line, index in enumerate(chosen):
            bottom = height - top - (line + 1) * (side + gap) + gap
            caption = textwrap.fill(compared[index].prompt, 24, max_lines=6, placeholder=" ...")
            figure.text((left - 0.1) / width, (bottom + side / 2) / height, caption, ha="right", va="center")
            for column, (name, picture) in enumerate(zip(names, compared[index].pictures, strict=True)):
                if picture is None:
                    raise UserError(f"images of {name} are missing; copy the images of its run folder too")
                place = ((left + column * (side + gap)) / width, bottom / height, side / width, side / height)
                axes = figure.add_axes(place)
                axes.imshow(open_picture(picture), interpolation="lanczos")
                axes.set_axis_off()
                if line == 0:
                    axes.set_title(textwrap.fill(name, 16), fontsize=8)
        replace_file(path, lambda partial: figure.savefig(partial, format="png", metadata={"Software": None}))


def _figure(columns: int, lines: int, *, height: float, share: bool) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(3.6 * columns + 0.4, height * lines + 0.5), layout="constrained")
    panels = np.asarray(figure.subplots(lines, columns, squeeze=False, sharex=share, sharey=share)).ravel()
    return figure, panels.tolist()


def _style(place: int) -> tuple[str, str]:
    return _COLOURS[place % len(_COLOURS)], _DASHES[place // len(_COLOURS) % len(_DASHES)]


def _dagger(score: Any) -> str:
    return " †" if score is not None and score.trained_on else ""


def _svg(figure: Figure) -> str:
    """The figure as an ``svg`` element, the same text for the same figure."""
    for empty in [axes for axes in figure.axes if not axes.has_data()]:
        empty.remove()
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    inline = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text[text.index("<svg") :])
    return inline.replace("xlink:href", "href").replace(_INK, "currentColor")
