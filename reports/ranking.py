"""Row against row: pairwise differences, ranks with intervals, and groups that cannot be told apart."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from reports.adjustment import adjusted, stands_out
from reports.seed_variance import Array
from reports.statistics import Interval, mean_intervals

TIE = 1e-12
"""A smaller difference between two shares is rounding."""


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
        rank: 1 + the number of rows that are better, each on the training seeds that both have; equal rows share a rank.
        best: rank if every row that cannot be told apart from this one were worse; None where no pair of the row was tested.
        worst: rank if every such row were better; None where ``best`` is.
        groups: letters; two rows without a common letter differ after adjustment; empty where ``best`` is None.
    """

    rank: int
    best: int | None
    worst: int | None
    groups: str


def compare_pairs(wins: Mapping[int, Array], seeds: Mapping[int, Sequence[int]]) -> tuple[Pair, ...]:
    """All pairs of rows that have a training seed in common, or of which one was not trained here.

    Pairs of rows that were both not trained here have no seeds that could have been others: they are estimated for themselves.
    Holm's adjustment is over all pairs.

    Args:
        wins: wins over the reference by row, (seeds, prompts, images).
        seeds: training seeds by row; empty for a row that was not trained here.
    """
    fixed: dict[tuple[int, int], Array] = {}
    trained: dict[tuple[int, int], Array] = {}
    for one, other in itertools.combinations(wins, 2):
        first, second = _common(wins[one], seeds[one], wins[other], seeds[other])
        if len(first):
            (trained if seeds[one] or seeds[other] else fixed)[one, other] = (first - second).mean(axis=2)
    found = dict(zip(fixed, mean_intervals(list(fixed.values())), strict=True))
    shared = _shared_seeds(list(trained), {row for row in seeds if seeds[row]})
    of_trained = dict(zip(trained, mean_intervals(list(trained.values()), shared=shared), strict=True))
    if all(len(table) == 1 for table in trained.values()):
        of_trained = {pair: interval.untested() for pair, interval in of_trained.items()}
    found |= {pair: interval.over(len(trained[pair])) for pair, interval in of_trained.items()}
    return tuple(Pair(*pair, difference) for pair, difference in adjusted(found).items())


def _shared_seeds(pairs: Sequence[tuple[int, int]], trained: set[int]) -> float:
    """Mean squared correlation between the seeds' parts of two differences, if seeds differ as much in every trained row.

    As seed squares are correlated as much, it is what `fit_seed_prior` needs; (R - 2) / (2 (N - 1)) for all N pairs of R trained rows.
    """
    if len(pairs) < 2:
        return 0.0
    signs = np.array([[(row == one) - (row == other) for row in sorted(trained)] for one, other in pairs], np.float64)
    directions = signs / np.linalg.norm(signs, axis=1, keepdims=True)
    # The squares of all correlations of pairs have the sum of those of rows, of which there are far fewer; a pair's own is 1.
    squares = float(((directions.T @ directions) ** 2).sum())
    return (squares - len(pairs)) / (len(pairs) * (len(pairs) - 1))


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
    The rank itself counts the same differences, so it lies between the two.

    Args:
        means: the endpoint by row, which decides between rows that have no training seed in common.
        pairs: all comparisons of rows.
    """
    ahead = {pair: means[pair[0]] - means[pair[1]] for pair in itertools.combinations(means, 2)}
    ahead |= {(pair.one, pair.other): pair.difference.mean for pair in pairs}
    ranks = dict.fromkeys(means, 1)
    for (one, other), gap in ahead.items():
        if abs(gap) > TIE:
            ranks[other if gap > 0 else one] += 1
    better: dict[int, set[int]] = {row: set() for row in means}
    for pair in pairs:
        if stands_out(pair.difference):
            above, below = (pair.one, pair.other) if pair.difference.mean > 0 else (pair.other, pair.one)
            better[below].add(above)
    tested = {row for pair in pairs if pair.difference.adjusted is not None for row in (pair.one, pair.other)}
    order = sorted(tested, key=lambda row: (ranks[row], len(better[row]), -means[row]))
    letters = compact_letters(order, {frozenset((row, other)) for row in order for other in better[row]})
    return {
        row: Standing(
            rank=ranks[row],
            best=1 + len(better[row]) if row in tested else None,
            worst=len(means) - sum(row in better[other] for other in means) if row in tested else None,
            groups=letters.get(row, ""),
        )
        for row in means
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
