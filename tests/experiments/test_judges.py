"""Judges that every round fits: the halves of the captions, and when a reward model has become worse."""

from __future__ import annotations

import numpy as np
import pytest

from bench.experiments.judges import fell
from bench.experiments.round import captions_of_round, halves

CAPTIONS = [f"caption {number}" for number in range(41)]


def test_the_halves_are_disjoint_and_whole() -> None:
    judge, policy = halves(CAPTIONS, 0)
    assert sorted([*judge, *policy]) == sorted(CAPTIONS)
    assert (len(judge), len(policy)) == (20, 21)


def test_the_halves_are_a_function_of_seed_and_captions() -> None:
    assert halves([*reversed(CAPTIONS), *CAPTIONS], 0) == halves(CAPTIONS, 0)
    assert halves(CAPTIONS, 1) != halves(CAPTIONS, 0)


def test_a_further_caption_moves_at_most_one_other() -> None:
    """Every caption has a draw of its own, so only the one at the cut can change sides."""
    before, after = (halves(captions, 0)[0] for captions in (CAPTIONS, [*CAPTIONS, "another"]))
    assert len({*before} ^ {*after} - {"another"}) <= 1


def test_captions_of_a_round_come_from_its_half() -> None:
    judge, policy = halves(CAPTIONS, 0)
    drawn = [captions_of_round(half, 15, 0, 1) for half in (judge, policy)]
    assert set(drawn[0]) <= set(judge)
    assert set(drawn[1]) <= set(policy)
    assert captions_of_round(judge, 15, 0, 2) != drawn[0]


@pytest.mark.parametrize(
    ("lost", "worse"),
    [
        # mean -0.25 and deviation .4522670169 of 12 changes: the interval is -.25 +- 2.201 * .1305582419, up to .037
        (3, False),
        # mean -1/3, deviation .4923659639: -.3333 +- 2.201 * .1421338109, up to -.0205
        (4, True),
    ],
)
def test_a_drop_beyond_its_interval(lost: int, worse: bool) -> None:
    before = np.ones(12)
    after = np.where(np.arange(12) < lost, 0.0, 1.0)
    assert fell(before, after, [f"caption {row}" for row in range(12)]) == worse
    assert not fell(after, before, [f"caption {row}" for row in range(12)])


def test_pairs_of_one_caption_are_one_observation() -> None:
    """The same four of twelve losses, all of one caption: six captions of two pairs, of which two lost everything.

    The changes of captions are -2, -2, 0, 0, 0, 0; around the mean -1/3 of a pair, -4/3 twice and 2/3 four times, so the error is
    sqrt(16/3 * 6/5) / 12 = .2108 and the interval -.333 +- 2.571 * .2108.
    """
    after = np.where(np.arange(12) < 4, 0.0, 1.0)
    assert not fell(np.ones(12), after, [f"caption {row // 2}" for row in range(12)])


def test_nothing_changed() -> None:
    assert not fell(np.ones(4), np.ones(4), ["a", "b", "c", "d"])
