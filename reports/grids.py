"""A report as tables of text: what terminal, Markdown, LaTeX and HTML show, each in its own notation."""

from __future__ import annotations

import dataclasses
import enum
import math
import statistics

from reports.records import MetricRecord
from reports.statistics import Interval
from reports.table import Cost, Report, Row, Score


class Verdict(enum.Enum):
    """What an interval says about a row against the base."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its value, what qualifies the value, and whether the interval leaves the base out."""

    value: str
    detail: str = ""
    verdict: Verdict = Verdict.OPEN


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """A table of text; the first column names the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


DASH = Cell("-")
ROUNDING = 1e-9
"""An interval of this share of its score is floating-point rounding."""


def grids(report: Report) -> tuple[Grid, ...]:
    """Win rates, scores and cost."""
    return (_win_rates(report), _scores(report), _cost(report))


def settings_lines(report: Report) -> tuple[str, ...]:
    """Protocol and metric signatures with the settings that a reader of a score must know."""
    metrics = ", ".join(f"{metric.title} {metric.signature}" for metric in report.metrics)
    scorers = ", ".join(f"{metric.title} {metric.scorer}" for metric in report.metrics)
    return (
        f"protocol {report.signature}: {report.settings}",
        f"metric signatures: {metrics}",
        f"the scorers alone, under any protocol: {scorers}",
    )


def footnotes(report: Report) -> tuple[str, ...]:
    """What must be known to read the tables, and what is not in them."""
    images = report.prompts * report.images_per_prompt
    paired = f"paired with the base on the same {report.prompts} prompts and noise ({images} images a seed)"
    lines = [
        f"[ ] and ± are 95 % intervals over prompts and training seeds, {paired}.",
        "bold is better than the base beyond the interval, italic is worse.",
    ]
    if any(score.trained_on for row in report.rows for score in row.scores.values()):
        lines.append("† trained on this metric: its score is no independent evidence.")
    if not all(metric.higher_is_better for metric in report.metrics):
        lines.append("↓ lower is better; a win is a lower score.")
    single = [row.label for row in report.rows if len(row.seeds) == 1]
    if single:
        lines.append(
            f"one training seed: {', '.join(single)}; the interval covers prompts, not how training seeds differ."
        )
    pairs = [row.label for row in report.rows if len(row.seeds) == 2]
    if pairs:
        lines.append(
            f"two training seeds: {', '.join(pairs)}; two say little about how seeds differ, so take the interval as narrow."
        )
    seedless = [row.label for row in report.rows[1:] if not row.seeds]
    if seedless:
        lines.append(f"no training seed of ours: {', '.join(seedless)}; the interval covers prompts alone.")
    lines += [f"{row.label} started from {row.init}, not from the base model." for row in report.rows if row.init]
    return (*lines, *_guidance_notes(report), *report.notes)


def _guidance_notes(report: Report) -> list[str]:
    """How the rows are sampled that do not follow the protocol's guidance."""
    lines = []
    if any(variant["negative"] is None for row in report.rows for variant in row.variants):
        lines.append("a row at a guidance of its own is compared with the base at the protocol's guidance.")
    negative = [row for row in report.rows if any(variant["negative"] for variant in row.variants)]
    if negative:
        lines.append(
            "A + B (alpha, beta): A sees the prompt, and base + alpha (A - base) + beta (B - base) the negative prompt, "
            "in two forward passes a step."
        )
    for row in negative:
        first = row.variants[0]
        if first["negative"]["title"] == row.label:
            made = f"{first['positive']['title']} + {row.label} ({first['alpha']:g}, {first['beta']:g})"
            lines.append(f"{row.label} is a negative, so its images are those of {made}.")
    return lines


def _win_rates(report: Report) -> Grid:
    metrics = sorted(report.metrics, key=lambda metric: metric.name != "gold")
    return Grid(
        "Win rate against the base, %",
        ("seeds", *(_heading(metric) for metric in metrics)),
        tuple(
            (row.label, (_seeds(row), *(_win_rate(row.scores.get(metric.name)) for metric in metrics)))
            for row in report.rows[1:]
        ),
    )


def _seeds(row: Row) -> Cell:
    return Cell(str(len(row.seeds))) if row.seeds else DASH


def _win_rate(score: Score | None) -> Cell:
    if score is None or score.win_rate is None:
        return DASH
    rate = score.win_rate
    value = f"{100 * rate.mean:.1f}{'†' if score.trained_on else ''}"
    return Cell(value, f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]", _verdict(rate, 0.5, higher_is_better=True))


def _scores(report: Report) -> Grid:
    usual = {metric.name: _usual_decimals(report, metric) for metric in report.metrics}
    return Grid(
        "Score, and its difference to the base",
        tuple(_heading(metric) for metric in report.metrics),
        tuple(
            (
                row.label,
                tuple(_score(row.scores.get(metric.name), metric, usual[metric.name]) for metric in report.metrics),
            )
            for row in report.rows
        ),
    )


def _score(score: Score | None, metric: MetricRecord, usual: int) -> Cell:
    """A score, rounded by its own interval; without one, as usual in its column."""
    if score is None:
        return DASH
    half = 0.0 if score.difference is None else score.difference.high - score.difference.mean
    decimals = _decimals(half) if half > ROUNDING * abs(score.mean) else usual
    value = f"{score.mean:.{decimals}f}{'†' if score.trained_on else ''}"
    if score.difference is None:
        return Cell(value)
    change = score.difference
    detail = f"{change.mean:+.{decimals}f} ± {change.high - change.mean:.{decimals}f}"
    return Cell(value, detail, _verdict(change, 0.0, higher_is_better=metric.higher_is_better))


def _cost(report: Report) -> Grid:
    return Grid(
        "Cost of one training run",
        ("pairs", "policy forwards", "reference forwards", "device seconds", "peak memory"),
        tuple((row.label, _cost_cells(row.cost)) for row in report.rows if row.cost is not None),
    )


def _cost_cells(cost: Cost) -> tuple[Cell, ...]:
    counts = (cost.pairs, cost.policy_forwards, cost.reference_forwards, cost.seconds)
    return (*(Cell(f"{count:,.0f}") for count in counts), Cell(f"{cost.peak_memory_bytes / 1e9:.2f} GB"))


def _heading(metric: MetricRecord) -> str:
    return metric.title if metric.higher_is_better else f"{metric.title} ↓"


def _verdict(interval: Interval, null: float, *, higher_is_better: bool) -> Verdict:
    if interval.low <= null <= interval.high:
        return Verdict.OPEN
    return Verdict.BETTER if (interval.mean > null) == higher_is_better else Verdict.WORSE


def _usual_decimals(report: Report, metric: MetricRecord) -> int:
    """As many as show two digits of a metric's usual interval."""
    changes = [row.scores[metric.name].difference for row in report.rows if metric.name in row.scores]
    halves = [change.high - change.mean for change in changes if change is not None and change.high > change.mean]
    return _decimals(statistics.median(halves)) if halves else 3


def _decimals(half: float) -> int:
    """As many as show two digits of half an interval."""
    return min(6, max(0, 1 - math.floor(math.log10(half))))
