"""The primary endpoint of a report, chosen before anything is compared, and the judges that it rests on."""

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
"""Judges whose win rates rank the rows this alike (Spearman) or more count as one witness."""
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
        witnesses: names of the metrics it is the mean of, in groups that count as one witness.
        correlations: between all metrics over the rows, empty where there are fewer than three rows.
    """

    name: str
    title: str
    witnesses: tuple[tuple[str, ...], ...]
    correlations: tuple[Correlation, ...]


def choose_endpoint(
    metrics: Sequence[MetricRecord], scores: Sequence[Mapping[str, Score]], wanted: str | None
) -> Endpoint | None:
    """The primary endpoint; None where there is no metric.

    Args:
        metrics: the metrics of the table.
        scores: of each row, for the rank correlations.
        wanted: name of a metric or ``judges``; None means gold if it is there, and the judges otherwise.

    Raises:
        UserError: there is no such metric.
    """
    names = [metric.name for metric in metrics]
    if wanted is not None and wanted not in (*names, JUDGES):
        raise UserError(f"--primary {wanted!r} is not in this table; choose one of {', '.join((*names, JUDGES))}")
    if not metrics:
        return None
    chosen = wanted or (GOLD if GOLD in names else JUDGES)
    correlations = _correlations(metrics, scores)
    titles = {metric.name: metric.info.title for metric in metrics}
    if chosen != JUDGES:
        return Endpoint(chosen, titles[chosen], ((chosen,),), correlations)
    judges = [metric for metric in metrics if metric.name != GOLD]
    return Endpoint(JUDGES, "mean of the held-out judges", _witnesses(judges, scores), correlations)


def endpoint_wins(
    endpoint: Endpoint, row: RunRecord, reference: RunRecord, metrics: Sequence[MetricRecord]
) -> Array | None:
    """A row's wins over a reference by the endpoint, (seeds, prompts, images): a mean over witnesses.

    The metrics that the row trained on are left out.  None where nothing is left, or a score is missing.
    """
    trained_on = set(row.trained_on)
    by_name = {metric.name: metric for metric in metrics}
    held_out = [[name for name in group if name not in trained_on] for group in endpoint.witnesses]
    groups = [group for group in held_out if group]
    named = [name for group in groups for name in group]
    if not named or any(name not in row.scores or name not in reference.scores for name in named):
        return None
    means = [wins_over(row, reference, [by_name[name] for name in group]) for group in groups]
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
