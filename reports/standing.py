"""Row against row: pairwise differences, ranks with intervals, and groups that cannot be told apart."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from reports.adjustment import adjusted, stands_out
from reports.comparisons import untested
from reports.crossed import Crossed
from reports.seed_variance import Array
from reports.statistics import Interval, estimate_means


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two rows of a report compared by the primary endpoint.

    Attributes:
        one: position of a row in the report.
        other: position of a later one.
        difference: the first's share of wins over the reference less the second's, on common prompts, noise and seeds.
    """

    one: int
    other: int
    difference: Interval


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """Where a row stands among the rows, the first of which is the best.

    Attributes:
        rank: by the endpoint's mean; rows with equal means share the best of their ranks.
        best: rank if every row that cannot be told apart from this one were worse.
        worst: rank if every such row were better.
        groups: letters; two rows without a common letter differ after adjustment.
    """

    rank: int
    best: int
    worst: int
    groups: str


def compare_pairs(wins: Mapping[int, Array], seeds: Mapping[int, Sequence[int]]) -> tuple[Pair, ...]:
    """All pairs of rows that have a training seed in common, or of which one was not trained here.

    The differences of a table share rows, so the pooled seed variance is worth no more than (rows - 1) (seeds - 1) degrees of
    freedom, as in an analysis of variance of rows and seeds.  Holm's adjustment is over all pairs.

    Args:
        wins: wins over the reference by row, (seeds, prompts, images).
        seeds: training seeds by row; empty for a row that was not trained here.
    """
    tables: dict[tuple[int, int], Array] = {}
    for one, other in itertools.combinations(wins, 2):
        first, second = _common(wins[one], seeds[one], wins[other], seeds[other])
        if len(first):
            tables[one, other] = (first - second).mean(axis=2)
    if not tables:
        return ()
    crossed = Crossed.of(list(tables.values()))
    rows = len({row for pair in tables for row in pair})
    shared = (rows - 2) / 2 / (len(tables) - 1) if len(tables) > 1 else 0.0
    found = dict(zip(tables, estimate_means(crossed, crossed.prior(shared)).intervals(), strict=True))
    if all(len(table) == 1 for table in tables.values()):
        found = {pair: untested(each) if seeds[pair[0]] or seeds[pair[1]] else each for pair, each in found.items()}
    return tuple(Pair(*pair, difference) for pair, difference in adjusted(found).items())


def _common(one: Array, ones: Sequence[int], other: Array, others: Sequence[int]) -> tuple[Array, Array]:
    """The seeds that two rows have in common; a row without seeds is compared with all seeds of the other."""
    if not ones or not others:
        return (one, other) if len(ones) >= len(others) else (one + 0 * other, other)
    common = [seed for seed in ones if seed in others]
    return one[[ones.index(seed) for seed in common]], other[[others.index(seed) for seed in common]]


def standings(means: Mapping[int, float], pairs: Sequence[Pair]) -> dict[int, Standing]:
    """Ranks, their intervals and groups.

    A row's rank is at least 1 + the number of rows that are better after adjustment, and at most the number of rows less those
    that are worse: intervals for all rows at once, from simultaneous pairwise tests (Mohamad, van Zwet, Solari, Goeman, 2021).

    Args:
        means: the endpoint by row.
        pairs: all comparisons of rows.
    """
    order = sorted(means, key=lambda row: -means[row])
    better: dict[int, set[int]] = {row: set() for row in order}
    for pair in pairs:
        if stands_out(pair.difference):
            above, below = (pair.one, pair.other) if pair.difference.mean > 0 else (pair.other, pair.one)
            better[below].add(above)
    letters = compact_letters(order, {frozenset((row, other)) for row in order for other in better[row]})
    return {
        row: Standing(
            rank=1 + sum(means[other] > means[row] for other in order),
            best=1 + len(better[row]),
            worst=len(order) - sum(row in better[other] for other in order),
            groups=letters[row],
        )
        for row in order
    }


def compact_letters(order: Sequence[int], different: set[frozenset[int]]) -> dict[int, str]:
    """Letters by row, so that two rows share one exactly where they are not told apart (insert and absorb, Piepho, 2004).

    Args:
        order: the rows, the best first; letters are given in this order.
        different: pairs of rows that are told apart.
    """
    groups = [set(order)]
    for pair in sorted(map(sorted, different)):
        kept = [group for group in groups if not group.issuperset(pair)]
        halves = [group - {row} for group in groups if group.issuperset(pair) for row in pair]
        # No other group held all of one before, and groups only get smaller: none can be absorbed but the halves.
        inserted = [half for half in halves if not any(half <= group for group in kept)]
        groups = kept + [half for place, half in enumerate(inserted) if not _absorbed(half, place, inserted)]
    place_of = {row: place for place, row in enumerate(order)}
    groups.sort(key=lambda group: sorted(place_of[row] for row in group))
    return {row: "".join(_letter(number) for number, group in enumerate(groups) if row in group) for row in order}


def _absorbed(group: set[int], place: int, groups: Sequence[set[int]]) -> bool:
    """Whether another group holds all of a group; of equal ones the first stays."""
    return any(
        group < other or (group == other and number < place) for number, other in enumerate(groups) if number != place
    )


def _letter(number: int) -> str:
    """A to z, then A to Z, then numbers in parentheses."""
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return alphabet[number] if number < len(alphabet) else f"({number + 1})"
