"""Plots of a report: inline SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.core.escaping import line
from bench.records.curve import LOOKS
from reports.content import Report, Row
from reports.curves import Curve
from reports.overoptimisation import Panel

if TYPE_CHECKING:  # importing matplotlib takes half a second, which a table in a terminal does not need
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#010203"
"""Placeholder for the page's text colour while drawing; the SVG has ``currentColor`` in its place."""

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
    """Win rates against the reference with their intervals, one panel per metric, as SVG; empty if there is nothing to show."""
    if len(report.rows) == 1 or not report.metrics:
        return ""
    with _styled():
        return _svg(_draw_win_rates(report))


def training_plot(report: Report) -> str:
    """Training curves of every row, averaged over seeds with the range between them, as SVG; empty if there are no curves."""
    with _styled():
        figure = _draw_training(report)
        return _svg(figure) if figure else ""


def panel_plot(row: Row) -> str:
    """What was measured along a row's training, one panel per metric and look, as SVG; empty if its seeds share no curve."""
    if row.panel is None or not row.panel.curves:
        return ""
    with _styled():
        return _svg(_draw_panel(row, row.panel))


def _styled() -> AbstractContextManager[None]:
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def _draw_panel(row: Row, panel: Panel) -> Figure:
    """Judges, looks, and the errors of winner and loser in one."""
    gaps = [name for name in ("winner_gap", "loser_gap") if name in row.curves]
    count = len(panel.curves) + bool(gaps)
    columns = min(4, count)
    figure, panels = _figure(columns, -(-count // columns), height=1.75, share=False)
    for axes, (name, curve) in zip(panels, panel.curves.items(), strict=False):
        trained = name in panel.trained_on
        _draw_curve(axes, curve, _COLOURS[1 if trained else 7 if name in LOOKS else 0], label="protocol")
        if name in panel.sampler_curves:
            _draw_curve(axes, panel.sampler_curves[name], _COLOURS[2], label="training's sampler")
            axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
        role = "" if name in LOOKS else " (trained on)" if trained else " (held out)"
        axes.set_title(f"{panel.titles[name]}{role}", fontsize=9, loc="left", fontweight="bold")
    if gaps:
        axes = panels[len(panel.curves)]
        for gap, colour in zip(gaps, (_COLOURS[2], _COLOURS[3]), strict=False):
            _draw_curve(axes, row.curves[gap], colour, label=gap.removesuffix("_gap"))
        axes.set_title("error, policy minus reference", fontsize=9, loc="left", fontweight="bold")
        axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
    for axes in panels[:count]:
        axes.grid()
        axes.set_xlabel("pairs seen")
    return figure


def _draw_curve(axes: Axes, curve: Curve, colour: str, label: str | None = None) -> None:
    axes.plot(curve.pairs, curve.mean, color=colour, linewidth=1.6, label=label)
    axes.fill_between(curve.pairs, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)


def _draw_win_rates(report: Report) -> Figure:
    metrics, rows = report.metrics, report.rows[1:]
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
            ends = [100 * end for end in rate.ends or ()]
            panel.plot(ends, [place] * len(ends), color=colour, linewidth=2.2, solid_capstyle="round")
            panel.plot(
                100 * rate.mean,
                place,
                "o",
                color=colour,
                markersize=6,
                fillstyle="none" if score.trained_on else "full",
            )
        names = [f"{line(row.label)}{_dagger(row.scores.get(metric.name))}" for row in rows]
        panel.set_yticks(range(len(rows)), names)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        title = f"{metric.info.title}{_dagger(report.rows[0].scores.get(metric.name))}"
        panel.set_title(title, fontsize=10, loc="left", fontweight="bold")
        panel.grid(axis="x")
    return figure


def _draw_training(report: Report) -> Figure | None:
    rows = report.rows
    quantities = [name for name in _CURVES if any(name in row.curves for row in rows)]
    if not quantities:
        return None
    columns = min(3, len(quantities))
    figure, panels = _figure(columns, -(-len(quantities) // columns), height=2.3, share=False)
    for panel, quantity in zip(panels, quantities, strict=False):
        for place, row in enumerate(rows, start=-1):  # the colours of the plot of win rates, which has no reference
            curve = row.curves.get(quantity)
            if curve is None:
                continue
            colour, dash = _style(place)
            panel.plot(curve.pairs, curve.mean, color=colour, linestyle=dash, linewidth=1.5, label=line(row.label))
            panel.fill_between(
                curve.pairs, curve.low, curve.high, color=colour, alpha=min(0.15, 1 / len(rows)), linewidth=0
            )
        panel.set_title(_CURVES[quantity], fontsize=10, loc="left", fontweight="bold")
        panel.set_xlabel("pairs seen")
        panel.grid()
    keys = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(
        keys.values(), keys.keys(), loc="outside lower center", ncols=min(5, len(keys)), frameon=False, labelcolor=_INK
    )
    return figure


def _figure(columns: int, lines: int, *, height: float, share: bool) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * columns + 0.4, height * lines + 0.5), layout="constrained")
    panels = np.asarray(figure.subplots(lines, columns, squeeze=False, sharex=share, sharey=share)).ravel()
    return figure, panels.tolist()


def _style(place: int) -> tuple[str, str]:
    return _COLOURS[place % len(_COLOURS)], _DASHES[place // len(_COLOURS) % len(_DASHES)]


def _dagger(score: Any) -> str:
    return " †" if score is not None and score.trained_on else ""


def _svg(figure: Figure) -> str:
    """The figure as an ``svg`` element; deterministic."""
    for empty in [axes for axes in figure.axes if not axes.has_data()]:
        empty.remove()
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    inline = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text[text.index("<svg") :])
    return inline.replace("xlink:href", "href").replace(_INK, "currentColor")
