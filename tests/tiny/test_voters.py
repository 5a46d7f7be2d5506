from __future__ import annotations

import numpy as np
import pytest

from bench.tiny.voters import PROPERTIES, VOTERS, expected_utility, population_preference, properties, utilities
from bench.tiny.world import Request, Scene
from tests.tiny.exact import measured_exactly

SCENE = Scene("bee", "red", size=0.6, x=0.5, y=0.5, tilt=0.0, vividness=0.8, texture="plain")


def test_shares_are_a_population() -> None:
    assert sum(voter.share for voter in VOTERS) == pytest.approx(1)
    assert all(voter.share > 0 for voter in VOTERS)


def test_voters_are_opposed_on_some_property() -> None:
    weights = np.array([[getattr(voter, name) for name in PROPERTIES] for voter in VOTERS])
    opposed = [name for name, column in zip(PROPERTIES, weights.T, strict=True) if column.min() < 0 < column.max()]
    assert set(opposed) == {"large", "vivid", "textured"}


def test_properties_worked_by_hand() -> None:
    values = properties(Request("bee", "blue"), measured_exactly([SCENE]), 0)
    assert dict(zip(PROPERTIES, values, strict=True)) == pytest.approx(
        {
            "right_object": 1,
            "right_colour": 0,
            "named_extra": 1,
            "large": 0.5,
            "centred": 1,
            "vivid": 0.8,
            "textured": 0,
        }
    )


def test_expected_utility_worked_by_hand() -> None:
    values = properties(Request("bee", "blue"), measured_exactly([SCENE]), 0)[None]
    literalist, close_up, miniaturist = 3 + 2, 1.5 + 4 * 0.5, 1.5 - 3 * 0.5
    colourist, minimalist, composer = 1 + 4 * 0.8, 1.5 - 0.8, 1 + 4
    by_hand = [literalist, close_up, miniaturist, colourist, minimalist, composer]
    assert utilities(values)[0] == pytest.approx(by_hand)
    shares = [0.30, 0.25, 0.08, 0.17, 0.12, 0.08]
    assert expected_utility(values)[0] == pytest.approx(np.dot(by_hand, shares))


def test_preferences_of_a_pair_and_its_swap_sum_to_one() -> None:
    values = np.random.default_rng(0).uniform(size=(20, 2, len(PROPERTIES)))
    forward = population_preference(values[:, 0], values[:, 1])
    assert forward + population_preference(values[:, 1], values[:, 0]) == pytest.approx(np.ones(20))
    assert population_preference(values[:, 0], values[:, 0]) == pytest.approx(np.full(20, 0.5))


def test_what_every_voter_wants_wins() -> None:
    right, wrong = (properties(Request(name, "red"), measured_exactly([SCENE]), 0)[None] for name in ("bee", "cat"))
    assert population_preference(right, wrong)[0] > 0.7
