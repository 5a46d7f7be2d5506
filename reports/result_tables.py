"""A report as tables of text."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.records.config import BASE
from bench.records.scores import MetricRecord
from reports.comparisons import Score
from reports.conclusion_tables import (
    agreement_table,
    conclusion_table,
    correlation_table,
    pairs_table,
    reference_name,
    seeds_cell,
)
from reports.content import Cost, Report, Row, trained_rows
from reports.settings import RowSettings
from reports.statistics import ROUNDING
from reports.text_table import DASH, Cell, TextTable, plus_minus, rate_cell, verdict

HYPHEN_AS_MINUS = re.compile(r"(?<![\w.)\]])-(?=\d)")
"""A hyphen that stands for the minus of a number; formats that have a minus sign replace it."""
ABOUT_EQUAL = 1.1
"""Runs end after the step that reaches their budget, so costs that are to be equal differ by so much at most."""


def report_tables(report: Report) -> tuple[TextTable, ...]:
    """Conclusions, win rates, scores and cost."""
    return (*conclusion_tables(report), *result_tables(report))


def conclusion_tables(report: Report) -> tuple[TextTable, ...]:
    """The primary endpoint, all pairs of rows, and what is known about the metrics, as far as there is any."""
    first = (conclusion_table(report), pairs_table(report), correlation_table(report), agreement_table(report))
    return tuple(grid for grid in first if grid is not None)


def result_tables(report: Report) -> tuple[TextTable, ...]:
    """Win rates, scores and cost."""
    return (*comparison_tables(report), _cost(report))


def comparison_tables(report: Report) -> tuple[TextTable, ...]:
    """Win rates and scores against the reference."""
    return (_win_rates(report), _scores(report))


def settings_table(report: Report) -> TextTable:
    """All training settings: one line per field, one column per row of the report."""
    trained = trained_rows(report)
    columns = [_settings(row, settings) for row, settings in trained]
    fields = dict.fromkeys(field for column in columns for field in column)
    return TextTable(
        "Settings of each row",
        tuple(row.label for row, _ in trained),
        tuple(
            (field, tuple(Cell(column[field]) if field in column else DASH for column in columns)) for field in fields
        ),
        kind="settings",
    )


def settings_lines(report: Report) -> tuple[str, ...]:
    """Protocol and metric signatures, with the settings that a reader needs to interpret a score."""
    metrics = ", ".join(f"{metric.info.title} {metric.signature}" for metric in report.metrics)
    scorers = ", ".join(f"{metric.info.title} {metric.scorer}" for metric in report.metrics)
    return (
        f"protocol {report.signature}: {report.settings}",
        f"metric signatures: {metrics}",
        f"scorer signatures (independent of the protocol): {scorers}",
    )


def _settings(row: Row, settings: RowSettings) -> dict[str, str]:
    data, seen = settings.data, settings.prompts_in_training
    known: dict[str, Any] = {
        "data": data.source,
        "pairs": data.pairs if data.labels_count else None,
        "digest of the data": data.digest,
        "digest of the labels": data.labels,
        "evaluation prompts in training": seen,
        "recipe": settings.recipe,
        "changed": ", ".join(f"{field}={value}" for field, value in settings.changed.items()) or None,
        "started from": row.init or BASE,
        "limit": settings.limit,
        "training seeds": ", ".join(map(str, row.seeds)),
    }
    whole = {**known, **_dotted("algorithm", settings.algorithm), **_dotted("training", settings.training.to_json())}
    return {
        field: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for field, value in whole.items()
        if value is not None
    }


def _dotted(group: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field, value in fields.items():
        name = f"{group}.{field}"
        flat |= _dotted(name, value) if isinstance(value, dict) else {name: value}
    return flat


def _win_rates(report: Report) -> TextTable:
    watched = any(row.panel for row in report.rows)
    return TextTable(
        f"Win rate against {reference_name(report)}, %",
        (
            "seeds",
            *(f"{_heading(metric)}{_dagger(report.rows[0], metric)}" for metric in report.metrics),
            *(["diversity, %"] if watched else []),
        ),
        tuple(
            (
                row.label,
                (
                    seeds_cell(row),
                    *(_win_rate(row.scores.get(metric.name)) for metric in report.metrics),
                    *([_diversity(row)] if watched else []),
                ),
            )
            for row in report.rows[1:]
        ),
        kind="win-rates",
    )


def _win_rate(score: Score | None) -> Cell:
    if score is None or score.win_rate is None:
        return DASH
    return rate_cell(score.win_rate, "†" if score.trained_on else "")


def _dagger(row: Row, metric: MetricRecord) -> str:
    """Marks a metric that a row was trained on."""
    return "†" if metric.name in row.scores and row.scores[metric.name].trained_on else ""


def _diversity(row: Row) -> Cell:
    """Change of the within-prompt diversity over the training; not judged, so never marked."""
    if row.panel is None or (change := row.panel.diversity) is None:
        return DASH
    detail = "" if change.ends is None else f"[{change.ends[0]:+z.0f}, {change.ends[1]:+z.0f}]"
    return Cell(f"{change.mean:+z.0f}", detail)


def _scores(report: Report) -> TextTable:
    decimals = {metric.name: _usual_decimals(report, metric) for metric in report.metrics}
    return TextTable(
        f"Score, and its difference from {reference_name(report)}",
        tuple(_heading(metric) for metric in report.metrics),
        tuple(
            (
                row.label,
                tuple(_score(row.scores.get(metric.name), metric, decimals[metric.name]) for metric in report.metrics),
            )
            for row in report.rows
        ),
        ("Bold and italic are about the difference, not the score.",),
        kind="scores",
    )


def _score(score: Score | None, metric: MetricRecord, decimals: int) -> Cell:
    if score is None:
        return DASH
    value = f"{score.mean:z.{decimals}f}{'†' if score.trained_on else ''}"
    if score.difference is None:
        return Cell(value)
    change = score.difference
    detail = f"{change.mean:+z.{decimals}f} {plus_minus(change, decimals)}".rstrip()
    return Cell(value, detail, verdict(change, 0.0, higher_is_better=metric.info.higher_is_better))


def _cost(report: Report) -> TextTable:
    known = [(row.label, row.cost) for row in report.rows if row.cost is not None]
    calls = [
        (cost.policy_forwards, cost.policy_backwards, cost.reference_forwards, cost.reward_calls) for _, cost in known
    ]
    notes = [
        "Means over training seeds; device seconds are followed by their range over the seeds, and peak memory is the largest.  Forwards and backwards count images."
    ]
    evaluations = [forwards + 2 * backwards + reference for forwards, backwards, reference, _ in calls]
    if len(set(calls)) > 1 and max(evaluations) > ABOUT_EQUAL * min(evaluations):
        notes.append("Rows differ in cost, so the tables above do not compare them at equal cost.")
    elif len(set(calls)) > 1:
        notes.append(
            "Rows have about the same number of network evaluations, of which a backward counts as two, and may differ in other costs."
        )
    counted = ["pairs", "policy_forwards", "policy_backwards", "reference_forwards"]
    if any(cost.samples for _, cost in known):
        counted += ["samples", "reward_calls"]
        notes.append(
            "Samples: images that training made; where an online algorithm made them, pairs are the samples that were trained on.  Reward "
            "calls: scores that training asked for, one per image and metric."
        )
    return TextTable(
        "Cost of one training run",
        (*(name.replace("_", " ") for name in counted), "device seconds", "peak memory"),
        tuple((label, _cost_cells(cost, counted)) for label, cost in known),
        tuple(notes),
        kind="cost",
    )


def _cost_cells(cost: Cost, counted: Sequence[str]) -> tuple[Cell, ...]:
    return (
        *(Cell(f"{getattr(cost, name):,.0f}") for name in counted),
        Cell(_seconds(cost.seconds), _seconds_spread(cost)),
        Cell(f"{cost.peak_memory_bytes / 1e9:.2f} GB"),
    )


def _seconds_spread(cost: Cost) -> str:
    """The fastest and the slowest seed; empty where they show alike."""
    low, high = _seconds(cost.seconds_low), _seconds(cost.seconds_high)
    return "" if low == high else f"({low} to {high})"


def _seconds(seconds: float) -> str:
    """Whole seconds; two significant digits below ten."""
    rounded = float(f"{seconds:.1e}")
    return f"{rounded:.{_decimals(rounded)}f}" if 0 < rounded < 10 else f"{seconds:,.0f}"


def _heading(metric: MetricRecord) -> str:
    return metric.info.title if metric.info.higher_is_better else f"{metric.info.title} ↓"


def _usual_decimals(report: Report, metric: MetricRecord) -> int:
    """Decimals that show two digits of half a metric's median interval, the same for the whole column."""
    scores = [row.scores[metric.name] for row in report.rows if metric.name in row.scores]
    found = [(score.mean, score.difference.half) for score in scores if score.difference is not None]
    halves = [half for mean, half in found if half is not None and half > ROUNDING * abs(mean)]
    return _decimals(statistics.median_low(halves)) if halves else 3


def _decimals(value: float) -> int:
    """Decimals that show two significant digits of a positive value."""
    return min(6, max(0, 1 - math.floor(math.log10(value))))
