"""The primary endpoint of a report: which metric, or which judges, its main claims rest on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from bench.core.errors import UserError
from bench.records.scores import MetricRecord
from reports.comparisons import Score, wins_over
from reports.records import RunRecord
from reports.seed_variance import Array

GOLD = "gold"
"""The metric that knows the truth, on the tiny world."""
JUDGES = "judges"
"""What stands for the mean win rate over the held-out judges in ``--primary``."""
TOGETHER = 0.9
"""Judges whose win rates rank the rows this alike (Spearman) or more count as one."""
FEWEST_ROWS = 8
"""With fewer rows a rank correlation of 0.9 says nothing, and every judge counts for itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation between two metrics over the rows of a table.

    Attributes:
        one: title of a metric.
        other: title of another one.
        value: between -1 and 1.
    """

    one: str
    other: str
    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """The comparison that a report's main claims rest on.

    Attributes:
        name: of a metric, or ``judges``.
        title: what tables call it.
        witnesses: names of the metrics it is the mean of, in groups that count as one metric.
        correlations: between all metrics over the rows, empty where there are fewer than three rows.
    """

    name: str
    title: str
    witnesses: tuple[tuple[str, ...], ...]
    correlations: tuple[Correlation, ...]


def choose_endpoint(
    metrics: Sequence[MetricRecord],
    rows: Sequence[RunRecord],
    scores: Sequence[Mapping[str, Score]],
    wanted: str | None,
) -> Endpoint | None:
    """The primary endpoint; None where there is no metric to choose without being asked: see `why_no_judges`.

    Args:
        metrics: the metrics of the table.
        rows: all rows of the table, the reference among them.
        scores: of each row, for the rank correlations.
        wanted: name of a metric or ``judges``; None means gold if it is there, and the judges otherwise.

    Raises:
        UserError: there is no such metric, or there are no judges.
    """
    names = [metric.name for metric in metrics]
    judges = held_out_judges(metrics, rows)
    offered = (*names, *([JUDGES] if judges else []))
    if wanted is not None and wanted not in offered:
        why = f"rests on nothing, since {why_no_judges(metrics, rows)}" if wanted == JUDGES else "is not in this table"
        raise UserError(f"--primary {wanted!r} {why}; choose one of {', '.join(offered)}")
    chosen = wanted or (GOLD if GOLD in names else JUDGES)
    if chosen not in offered:
        return None
    correlations = _correlations(metrics, scores)
    titles = {metric.name: metric.info.title for metric in metrics}
    if chosen != JUDGES:
        return Endpoint(chosen, titles[chosen], ((chosen,),), correlations)
    return Endpoint(JUDGES, "mean of the held-out judges", _witnesses(judges, scores), correlations)


def held_out_judges(metrics: Sequence[MetricRecord], rows: Sequence[RunRecord]) -> list[MetricRecord]:
    """The metrics besides gold that no row was trained on: all rows are judged by the same ones."""
    used = {name for row in rows for name in row.trained_on}
    return [metric for metric in metrics if metric.name != GOLD and metric.name not in used]


def why_no_judges(metrics: Sequence[MetricRecord], rows: Sequence[RunRecord]) -> str:
    """Why a table has no held-out judges, in words."""
    used = trained_on_judges(metrics, rows)
    return f"each judge has a row that was trained on it ({used})" if used else "no metric but gold was scored"


def trained_on_judges(metrics: Sequence[MetricRecord], rows: Sequence[RunRecord]) -> str:
    """The judges that are not held out, each with the rows that were trained on it; empty if all are."""
    found = {
        metric.info.title: [row.label for row in rows if metric.name in row.trained_on]
        for metric in metrics
        if metric.name != GOLD
    }
    return "; ".join(f"{title}: {', '.join(labels)}" for title, labels in found.items() if labels)


def endpoint_wins(
    endpoint: Endpoint, row: RunRecord, reference: RunRecord, metrics: Sequence[MetricRecord]
) -> Array | None:
    """A row's wins over a reference by the endpoint, (seeds, prompts, images): a mean over its groups of metrics.

    None where either was trained on one of its metrics, or a score is missing.
    """
    named = [name for group in endpoint.witnesses for name in group]
    used = {*row.trained_on, *reference.trained_on}
    if any(name in used or name not in row.scores or name not in reference.scores for name in named):
        return None
    by_name = {metric.name: metric for metric in metrics}
    means = [wins_over(row, reference, [by_name[name] for name in group]) for group in endpoint.witnesses]
    return np.asarray(np.mean(means, axis=0), dtype=np.float64)


def _win_rates(scores: Sequence[Mapping[str, Score]], names: Sequence[str]) -> Array:
    """Win rates (rows, metrics) of the rows that have all of them."""
    rates = [[row[name].win_rate if name in row else None for name in names] for row in scores]
    whole = [[rate.mean for rate in row if rate is not None] for row in rates]
    return np.array([row for row in whole if len(row) == len(names)], dtype=np.float64).reshape(-1, len(names))


def _correlation_matrix(rates: Array) -> Array:
    """Spearman's rank correlations (metrics, metrics) of rates (rows, metrics); 0 with a metric that ranks all rows the same."""
    columns = list(rates.T)

    def spearman(one: Array, other: Array) -> float:
        return 0.0 if np.ptp(one) == 0 or np.ptp(other) == 0 else float(stats.spearmanr(one, other).statistic)

    return np.array([[spearman(one, other) for other in columns] for one in columns], dtype=np.float64)


def _correlations(metrics: Sequence[MetricRecord], scores: Sequence[Mapping[str, Score]]) -> tuple[Correlation, ...]:
    rates = _win_rates(scores, [metric.name for metric in metrics])
    if len(rates) < 3:
        return ()
    values = _correlation_matrix(rates)
    titles = [metric.info.title for metric in metrics]
    return tuple(
        Correlation(titles[one], titles[other], float(values[one, other]))
        for one in range(len(titles))
        for other in range(one + 1, len(titles))
    )


def _witnesses(judges: Sequence[MetricRecord], scores: Sequence[Mapping[str, Score]]) -> tuple[tuple[str, ...], ...]:
    """Groups of judges that are connected by rank correlations of at least `TOGETHER`."""
    names = [judge.name for judge in judges]
    rates = _win_rates(scores, names)
    alike = _correlation_matrix(rates) >= TOGETHER if len(rates) >= FEWEST_ROWS else np.eye(len(names), dtype=bool)
    groups: list[list[int]] = []
    for place in range(len(names)):
        near = [group for group in groups if any(alike[place, member] for member in group)]
        groups = [group for group in groups if group not in near] + [[*(m for group in near for m in group), place]]
    return tuple(tuple(names[member] for member in group) for group in groups)
