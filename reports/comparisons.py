"""The cells of a table: every metric of every row against the reference row, with what the rows say about each other.

All rows of a column are estimated together, since how much training seeds differ is learned from all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bench.records.scores import MetricRecord
from reports.anova import Crossed
from reports.records import RowRecord, RunRecord
from reports.seed_variance import Array
from reports.statistics import Interval, Miss, mean_intervals, share_intervals, win_indicator

Estimator = Callable[..., tuple[Interval, ...]]

DOMINANT = 5.0
"""Variance of a one-seed mean by seeds over that by prompts, from which intervals of shares are too wide or too narrow."""
FAR_FROM_ENDS = 0.35
"""Shares between 15 and 85 %: their intervals may be too wide, those of others too narrow."""


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """One metric of one row, in displayed units (raw score times the metric's display factor).

    Attributes:
        mean: mean over seeds, prompts and images.
        difference: difference from the reference on the same prompts and noise; None for the reference itself.
        win_rate: share of images better than the reference's, ties counting half; None for the reference itself.
        trained_on: whether the row's training used this metric.
    """

    mean: float
    difference: Interval | None
    win_rate: Interval | None
    trained_on: bool


def compare_scores(
    rows: Sequence[RunRecord], reference: RunRecord, metrics: Sequence[MetricRecord]
) -> list[dict[str, Score]]:
    """The scores of each row by name of the metric, without metrics that some seed lacks.

    Args:
        rows: the rows of the table, the reference among them.
        reference: the row that the others are compared with.
        metrics: the metrics of the table.
    """
    scores: list[dict[str, Score]] = [{} for _ in rows]
    for metric in metrics:
        factor, name = metric.info.display_factor, metric.name
        differences: dict[int, Array] = {}
        wins: dict[int, Array] = {}
        for place, row in enumerate(rows):
            if comparable(row, reference) and name in row.scores and name in reference.scores:
                mine, other = paired(row, reference, name)
                differences[place] = (mine - other) * factor
                wins[place] = win_indicator(mine, other, higher_is_better=metric.info.higher_is_better)
        of_differences = estimate(differences, rows, reference, mean_intervals)
        of_wins = estimate_wins(wins, rows, reference)
        for place, row in enumerate(rows):
            if name in row.scores:
                mean = float(row.scores[name].mean()) * factor
                trained_on = name in row.trained_on
                scores[place][name] = Score(mean, of_differences.get(place), of_wins.get(place), trained_on)
    return scores


def estimate(
    tables: Mapping[int, Array], rows: Sequence[RunRecord], reference: RunRecord, estimator: Estimator
) -> dict[int, Interval]:
    """The intervals of a column by row.

    Rows that were not trained here are what they are: they have no training seeds that could have been others, so they neither
    learn from the other rows nor teach them.  Trained rows are not tested where none of them has two seeds.

    Args:
        tables: values (seeds, prompts, images) by the row's place.
        rows: the rows of the table.
        reference: the row that they are compared with.
        estimator: `mean_intervals` or `share_intervals`.
    """
    trained = _over_training(tables, rows, reference)
    fixed = {place: table for place, table in tables.items() if place not in trained}
    found = dict(zip(fixed, estimator(list(fixed.values())), strict=True))
    # the seeds of a reference are in every row's difference from it: half of the variance, a quarter of the squares' variance
    shared = 0.25 if reference.seeds else 0.0
    of_trained = dict(zip(trained, estimator(list(trained.values()), shared=shared), strict=True))
    if all(len(table) == 1 for table in trained.values()):
        of_trained = {place: interval.untested() for place, interval in of_trained.items()}
    return {**found, **{place: interval.over(len(trained[place])) for place, interval in of_trained.items()}}


def estimate_wins(tables: Mapping[int, Array], rows: Sequence[RunRecord], reference: RunRecord) -> dict[int, Interval]:
    """The intervals of a column of win rates by row, with what simulations say about such intervals: see `estimate`."""
    misses = known_misses(_over_training(tables, rows, reference))
    return {
        place: dataclasses.replace(interval, miss=None if interval.ends is None else misses.get(place))
        for place, interval in estimate(tables, rows, reference, share_intervals).items()
    }


def _over_training(tables: Mapping[int, Array], rows: Sequence[RunRecord], reference: RunRecord) -> dict[int, Array]:
    """The tables of rows whose difference from the reference depends on training seeds."""
    return {place: table for place, table in tables.items() if rows[place].seeds or reference.seeds}


def known_misses(tables: Mapping[int, Array]) -> dict[int, Miss]:
    """The rows whose share has an interval that was seen to be too wide or too narrow in simulations; see docs/statistics.md.

    Too wide: shares near one half of one training seed where seeds vary `DOMINANT` times as much as prompts or more (the shares that
    seeds reach are bounded, which Student's t does not know), and shares of one or two seeds where seeds do not differ (the pooled square
    is not above that of the rest, which is the least that it counts for).  Too narrow: shares near 0 and 1 where seeds vary so much, since
    rows differ in how much they do.

    Args:
        tables: wins over training seeds, (seeds, prompts, images) by the row's place.
    """
    if all(len(table) == 1 for table in tables.values()):
        return {}
    crossed = Crossed.of(list(tables.values()))
    prior, seeds = crossed.prior(), crossed.seeds
    of_seeds = max(0.0, float(prior.scale - prior.rest))
    of_prompts = np.maximum(0, crossed.prompt_square - crossed.rest_square) / seeds + crossed.rest_square
    dominant, from_half = of_seeds >= DOMINANT * of_prompts, np.abs(crossed.mean - 0.5)
    wide = ((seeds == 1) & dominant & (from_half <= FAR_FROM_ENDS)) | (
        (seeds <= 2) & (of_seeds == 0) & (from_half <= FAR_FROM_ENDS)
    )
    narrow = dominant & (from_half > FAR_FROM_ENDS)
    found: dict[int, Miss] = {place: "too wide" for place, miss in zip(tables, wide.tolist(), strict=True) if miss}
    return found | {place: "too narrow" for place, miss in zip(tables, narrow.tolist(), strict=True) if miss}


def comparable(row: RunRecord, reference: RunRecord) -> bool:
    """Whether a row can be compared with another: they have a training seed in common, or one of them was not trained here."""
    return row is not reference and (not row.seeds or not reference.seeds or bool({*row.seeds} & {*reference.seeds}))


def paired(row: RunRecord, reference: RunRecord, metric: str) -> tuple[Array, Array]:
    """Scores of a row and of its reference that belong together, (seeds, prompts, images) each; one of a reference without seeds.

    Training seeds that both have are paired: they saw the same batches and noise.  A row without seeds is compared with all seeds
    of the reference.  The two must be `comparable`.
    """
    mine, other = row.scores[metric], reference.scores[metric]
    if not row.seeds:
        return np.repeat(mine, len(other), axis=0), other
    if not reference.seeds:
        return mine, other
    common = [seed for seed in row.seeds if seed in reference.seeds]
    return mine[[row.seeds.index(seed) for seed in common]], other[[reference.seeds.index(seed) for seed in common]]


def paired_seeds(row: RowRecord, reference: RowRecord) -> tuple[int, ...]:
    """The training seeds of the tables that `paired` returns; empty if neither was trained here."""
    if not row.seeds or not reference.seeds:
        return row.seeds or reference.seeds
    return tuple(seed for seed in row.seeds if seed in reference.seeds)


def wins_over(row: RunRecord, reference: RunRecord, metrics: Sequence[MetricRecord]) -> Array:
    """Mean of a row's wins by several metrics, (seeds, prompts, images)."""
    won = [
        win_indicator(*paired(row, reference, metric.name), higher_is_better=metric.info.higher_is_better)
        for metric in metrics
    ]
    return np.asarray(np.mean(won, axis=0), dtype=np.float64)
