"""What a table concludes: the primary endpoint of every row over its reference and over its placebo, marks, ranks and groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from bench.records.scores import MetricRecord
from reports.adjustment import adjusted
from reports.comparisons import Score, comparable, compare_scores, estimate_wins, paired_seeds
from reports.endpoint import Endpoint, choose_endpoint, endpoint_wins
from reports.ranking import Pair, Standing, compare_pairs, standings
from reports.records import RowRecord, RunRecord
from reports.seed_variance import Array
from reports.statistics import Interval


@dataclasses.dataclass(frozen=True, slots=True)
class Conclusions:
    """Everything that comparing the rows of a table with one of them says.

    Attributes:
        endpoint: the primary endpoint; None where there is none.
        scores: of each row by name of the metric.
        over_reference: win rate over the reference by the primary endpoint, by row; without rows that have none.
        over_placebo: win rate over the row's placebo, by row; without rows that have none.
        pairs: all pairs of rows that are no placebos, by the primary endpoint.
        standings: ranks and groups by row, without placebos: a placebo is compared with its own row alone.
    """

    endpoint: Endpoint | None
    scores: Sequence[Mapping[str, Score]]
    over_reference: Mapping[int, Interval]
    over_placebo: Mapping[int, Interval]
    pairs: tuple[Pair, ...]
    standings: Mapping[int, Standing]


def conclude(
    rows: Sequence[RunRecord], place: int, metrics: Sequence[MetricRecord], primary: str | None
) -> Conclusions:
    """Compare the rows of a table with one of them.

    Args:
        rows: the base and the rows.
        place: the reference's position among them.
        metrics: the metrics of the table.
        primary: name of a metric or ``judges``; None means the default.

    Raises:
        UserError: there is no such metric, or there are no judges.
    """
    reference = rows[place]
    scores = compare_scores(rows, reference, metrics)
    endpoint = choose_endpoint(metrics, rows, scores, primary)
    if endpoint is None:
        scores, _ = _marked(None, scores, {}, {})
        return Conclusions(None, scores, {}, {}, (), {})
    wins = _wins(endpoint, rows, reference, metrics)
    over_reference = adjusted(estimate_wins(wins, rows, reference))
    over_placebo = _over_placebo(endpoint, rows, metrics)
    scores, over_placebo = _marked(endpoint.name, scores, over_reference, over_placebo)
    methods = {row: won for row, won in wins.items() if rows[row].placebo_of is None}
    pairs = compare_pairs(methods, {row: paired_seeds(rows[row], reference) for row in methods})
    means = {row: over_reference[row].mean for row in methods}
    return Conclusions(endpoint, scores, over_reference, over_placebo, pairs, standings(means, pairs))


def _wins(
    endpoint: Endpoint, rows: Sequence[RunRecord], reference: RunRecord, metrics: Sequence[MetricRecord]
) -> dict[int, Array]:
    found = {
        place: endpoint_wins(endpoint, row, reference, metrics)
        for place, row in enumerate(rows)
        if comparable(row, reference)
    }
    return {place: wins for place, wins in found.items() if wins is not None}


def _over_placebo(
    endpoint: Endpoint, rows: Sequence[RunRecord], metrics: Sequence[MetricRecord]
) -> dict[int, Interval]:
    """Each row against its placebo, paired by prompt, noise and training seed."""
    wins: dict[int, Array] = {}
    for place, row in enumerate(rows):
        twin = placebo_in(rows, row)
        if twin is not None and set(row.seeds) & set(twin.seeds):
            won = endpoint_wins(endpoint, row, twin, metrics)
            if won is not None:
                wins[place] = won
    # the placebos differ from row to row, so no seeds are shared as with one reference: the base stands for that
    return estimate_wins(wins, rows, rows[0])


def placebo_in(rows: Sequence[RunRecord], row: RowRecord) -> RunRecord | None:
    """The placebo of a row among others, one with a common training seed if there are several; None if there is none."""
    twins = [twin for twin in rows if _is_placebo_of(twin, row)]
    return max(twins, key=lambda twin: bool({*twin.seeds} & {*row.seeds}), default=None)


def _is_placebo_of(twin: RowRecord, row: RowRecord) -> bool:
    return twin.placebo_of == row.name and twin.algorithm == row.algorithm and twin.own and row.own


def _marked(
    primary: str | None,
    scores: Sequence[Mapping[str, Score]],
    over_reference: Mapping[int, Interval],
    over_placebo: Mapping[int, Interval],
) -> tuple[list[dict[str, Score]], dict[int, Interval]]:
    """All cells outside the primary column, adjusted as one family; the endpoint's own win rates are the primary column's."""
    family: dict[tuple[int, str, str], Interval] = {(row, "", "placebo"): each for row, each in over_placebo.items()}
    for row, by_metric in enumerate(scores):
        for name, score in by_metric.items():
            if score.difference is not None:
                family[row, name, "difference"] = score.difference
            if score.win_rate is not None and not (name == primary and row in over_reference):
                family[row, name, "win_rate"] = score.win_rate
    found = adjusted(family)
    marked = [
        {
            name: dataclasses.replace(
                score,
                difference=found.get((row, name, "difference")),
                win_rate=over_reference[row]
                if name == primary and row in over_reference
                else found.get((row, name, "win_rate")),
            )
            for name, score in by_metric.items()
        }
        for row, by_metric in enumerate(scores)
    ]
    return marked, {row: found[row, "", "placebo"] for row in over_placebo}
