"""The primary endpoint of a report: which metric, or which judges, its main claims rest on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from bench.core.errors import UserError
from bench.records.scores import MetricRecord
from reports.comparisons import Score, wins_over
from reports.records import UNLISTED, RunRecord
from reports.seed_variance import Array

GOLD = "gold"
"""The metric that knows the truth, on the tiny world."""
JUDGES = "judges"
"""What stands for the mean win rate over the held-out judges in ``--primary``."""
TOGETHER = 0.9
"""Judges whose win rates rank the rows this alike (Spearman) or more count as one."""
DIGITS = 12
"""Decimals of win rates that are ranked; what differs beyond them is rounding."""
FEWEST_CORRELATED = 3
"""Fewer rows have no rank correlation to speak of."""
FEWEST_ROWS = 8
"""With fewer rows a rank correlation of 0.9 says nothing, and every judge counts for itself."""


Found = Mapping[tuple[str, str], tuple[float, int]]
"""`_correlation` of each two metrics, by their names in the order of the table."""


@dataclasses.dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation between two metrics over the rows of a table.

    Attributes:
        one: title of a metric.
        other: title of another one.
        value: between -1 and 1.
        rows: how many rows have a win rate by both.
    """

    one: str
    other: str
    value: float
    rows: int = dataclasses.field(metadata={UNLISTED: True})


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """The comparison that a report's main claims rest on.

    Attributes:
        name: of a metric, or ``judges``.
        title: what tables call it.
        witnesses: names of the metrics it is the mean of, in groups that count as one metric.
        correlations: between all metrics over the rows that have both, empty where these are fewer than three.
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
    found = {
        (one.name, other.name): _correlation(scores, one.name, other.name)
        for one, other in itertools.combinations(metrics, 2)
    }
    correlations = _correlations(metrics, found)
    titles = {metric.name: metric.info.title for metric in metrics}
    if chosen != JUDGES:
        return Endpoint(chosen, titles[chosen], ((chosen,),), correlations)
    return Endpoint(
        JUDGES, "mean of the held-out judges", _witnesses([judge.name for judge in judges], found), correlations
    )


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
    found = [
        (metric.info.title, [row.label for row in rows if metric.name in row.trained_on])
        for metric in metrics
        if metric.name != GOLD
    ]
    return "; ".join(f"{title}: {', '.join(labels)}" for title, labels in found if labels)


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


def _correlation(scores: Sequence[Mapping[str, Score]], one: str, other: str) -> tuple[float, int]:
    """Spearman's rank correlation of two metrics over the rows that have both, and how many these are.

    It is 0 where a metric ranks all rows the same.  Rates that differ by rounding alone are the same.
    """
    found = [[row[name].win_rate if name in row else None for name in (one, other)] for row in scores]
    rates = [[rate.mean for rate in row if rate is not None] for row in found]
    both = np.round([row for row in rates if len(row) == 2], DIGITS).reshape(-1, 2)
    if len(both) == 0 or 0 in np.ptp(both, axis=0):
        return 0.0, len(both)
    return float(stats.spearmanr(*both.T).statistic), len(both)


def _correlations(metrics: Sequence[MetricRecord], found: Found) -> tuple[Correlation, ...]:
    """All of them by the metrics' titles; none where two metrics share fewer rows than `FEWEST_CORRELATED`."""
    titles = {metric.name: metric.info.title for metric in metrics}
    listed = tuple(Correlation(titles[one], titles[other], *each) for (one, other), each in found.items())
    return listed if all(each.rows >= FEWEST_CORRELATED for each in listed) else ()


def _witnesses(names: Sequence[str], found: Found) -> tuple[tuple[str, ...], ...]:
    """Groups of judges that are connected by rank correlations of at least `TOGETHER`."""
    alike = {pair for pair, (value, rows) in found.items() if value >= TOGETHER and rows >= FEWEST_ROWS}
    groups: list[list[str]] = []
    for name in names:
        near = [group for group in groups if any((member, name) in alike for member in group)]
        groups = [group for group in groups if group not in near] + [[*(m for group in near for m in group), name]]
    return tuple(map(tuple, groups))
