"""A report as one flat table: one row per configuration and metric, for CSV files and data frames."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from bench.records.scores import MetricRecord
from reports.content import Cost, Report, Row
from reports.settings import TrainingData
from reports.statistics import Interval

ENDS = {"": "mean", "_low": "low", "_high": "high"}
"""Endings of the columns of an interval that is not tested, and its fields."""


def flat_rows(report: Report) -> list[dict[str, Any]]:
    """One row per configuration and metric, in displayed units; every row carries its signatures."""
    return [_flat_row(report, row, metric) for row in report.rows for metric in report.metrics]


def _flat_row(report: Report, row: Row, metric: MetricRecord) -> dict[str, Any]:
    score, cost = row.scores.get(metric.name), row.cost
    return {
        "model": report.model,
        "algorithm": row.algorithm,
        "name": row.name,
        "label": row.label,
        "reference": report.rows[0].label,
        "metric": metric.name,
        "mean": None if score is None else score.mean,
        **_interval_columns("difference", None if score is None else score.difference),
        **_interval_columns("win_rate", None if score is None else score.win_rate),
        **_conclusion_columns(report, row),
        **_diversity_columns(row),
        **_agreement_columns(report, metric),
        "trained_on": None if score is None else score.trained_on,
        "prompts": report.prompts,
        "images_per_prompt": report.images_per_prompt,
        "seeds": len(row.seeds),
        **_settings_columns(row),
        **{field.name: None if cost is None else getattr(cost, field.name) for field in dataclasses.fields(Cost)},
        "metric_signature": metric.signature,
        "scorer_signature": metric.scorer,
        "variants": " ".join(variant.signature for variant in row.variants),
        "protocol_signature": report.signature,
        "protocol": report.settings,
    }


def _conclusion_columns(report: Report, row: Row) -> dict[str, Any]:
    standing = row.standing
    return {
        "primary": None if report.endpoint is None else report.endpoint.name,
        **_interval_columns("primary_over_reference", row.over_reference),
        **_interval_columns("primary_over_placebo", row.over_placebo),
        "placebo_of": row.placebo_of,
        "rank": None if standing is None else standing.rank,
        "rank_best": None if standing is None else standing.best,
        "rank_worst": None if standing is None else standing.worst,
        "groups": None if standing is None else standing.groups,
    }


def _diversity_columns(row: Row) -> dict[str, float | None]:
    """Change of the within-prompt diversity over the training, in percent."""
    change = None if row.panel is None else row.panel.diversity
    return {f"diversity{end}": None if change is None else getattr(change, field) for end, field in ENDS.items()}


def _agreement_columns(report: Report, metric: MetricRecord) -> dict[str, Any]:
    """How often the metric agrees with people; no columns where that was not asked for."""
    if not report.agreements:
        return {}
    found = next((each for each in report.agreements if each.metric == metric.name), None)
    columns: dict[str, Any] = {}
    for name, share in (("agreement", found and found.own), ("agreement_without_ties", found and found.decided)):
        columns |= {f"{name}{end}": share and getattr(share, field) for end, field in ENDS.items()}
    return columns | {f"agreement_{field}": found and getattr(found, field) for field in ("pairs", "data", "labels")}


def _settings_columns(row: Row) -> dict[str, Any]:
    given, data = row.settings, None if row.settings is None else row.settings.data
    return {
        "started_from": row.init,
        "recipe": None if given is None else given.recipe,
        "changed": None if given is None else " ".join(f"{field}={value}" for field, value in given.changed.items()),
        "algorithm_settings": None if given is None else json.dumps(given.algorithm, ensure_ascii=False),
        "training_settings": None if given is None else json.dumps(given.training.to_json(), ensure_ascii=False),
        "limit": None if given is None else given.limit,
        "prompts_in_training": None if given is None else given.prompts_in_training,
        **{f"data_{field.name}": data and getattr(data, field.name) for field in dataclasses.fields(TrainingData)},
    }


def _interval_columns(name: str, interval: Interval | None) -> dict[str, Any]:
    ends = {**ENDS, "_p": "p_value", "_p_adjusted": "adjusted", "_seeds": "seeds", "_miss": "miss"}
    return {f"{name}{end}": None if interval is None else getattr(interval, field) for end, field in ends.items()}
