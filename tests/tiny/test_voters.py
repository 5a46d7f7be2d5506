from __future__ import annotations

import numpy as np
import pytest

from bench.tiny.voters import (
    PROPERTIES,
    expected_utility,
    named_extras,
    personal_utility,
    population_preference,
    properties,
    vote_variance,
)
from bench.tiny.world import Request, Scene
from tests.tiny.exact import measured_exactly

SCENE = Scene("bee", "red", size=0.6, x=0.5, y=0.5, tilt=0.0, vividness=0.8, texture="plain")
RANDOM = np.random.default_rng(0)
PAIRS = RANDOM.uniform(size=(40, 2, len(PROPERTIES)))


def only(**values: float) -> np.ndarray:
    return np.array([[values.get(name, 0.0) for name in PROPERTIES]])


def test_utility_worked_by_hand() -> None:
    assert expected_utility(only(right_object=1, large=0.5, textured=1)) == pytest.approx([3.6 + 1.8 - 1.8])
    likes_texture = np.array([-2.0 if name == "textured" else 0.0 for name in PROPERTIES])
    assert personal_utility(only(right_object=1, textured=1), likes_texture) == pytest.approx([3.6 + 1.8])


def test_preference_is_the_mean_over_people() -> None:
    deviations = RANDOM.standard_normal((40_000, len(PROPERTIES)))
    margins = np.array([personal_utility(PAIRS[:, 0] - PAIRS[:, 1], z) for z in deviations])
    by_sampling = (1 / (1 + np.exp(-margins))).mean(0)
    assert population_preference(PAIRS[:, 0], PAIRS[:, 1]) == pytest.approx(by_sampling, abs=0.008)


def test_preferences_of_a_pair_and_its_swap_sum_to_one() -> None:
    forward = population_preference(PAIRS[:, 0], PAIRS[:, 1])
    assert forward + population_preference(PAIRS[:, 1], PAIRS[:, 0]) == pytest.approx(np.ones(len(PAIRS)))
    assert population_preference(PAIRS[:, 0], PAIRS[:, 0]) == pytest.approx(np.full(len(PAIRS), 0.5))


def test_one_property_worked_by_hand() -> None:
    # The margin is 3.6 (1 + z).  Its expected sigmoid by a Riemann sum over z on a fine grid: 0.815056.
    z = np.linspace(-9, 9, 40_001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    expected = (density / (1 + np.exp(-3.6 * (1 + z)))).sum() * (z[1] - z[0])
    assert expected == pytest.approx(0.815056, abs=1e-6)
    assert population_preference(only(right_object=1), only()) == pytest.approx([expected], abs=1e-6)


def test_the_parts_of_a_votes_variance_sum_to_a_quarter() -> None:
    parts = vote_variance(PAIRS[:, 0], PAIRS[:, 1])
    assert parts.taste + parts.person + parts.coin == pytest.approx(0.25)
    assert min(parts.taste, parts.person, parts.coin) > 0.01
    same = vote_variance(PAIRS[:, 0], PAIRS[:, 0])
    assert (same.taste, same.person, same.coin) == pytest.approx((0, 0, 0.25))


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


@pytest.mark.parametrize(
    ("name", "size", "right"),
    [("small", 0.30, True), ("small", 0.529, True), ("small", 0.531, False), ("large", 0.649, False), ("large", 0.651, True), ("large", 0.95, True)],
)  # fmt: skip
def test_a_named_size_has_a_limit_towards_the_other_alone(name: str, size: float, right: bool) -> None:
    scene = Scene("bee", "red", size=size, x=0.5, y=0.5, tilt=0.0, vividness=0.8, texture="plain")
    assert named_extras(Request("bee", "red", size=name), measured_exactly([scene]), 0) == {"size": right}


def test_what_every_voter_wants_wins() -> None:
    right, wrong = (properties(Request(name, "red"), measured_exactly([SCENE]), 0)[None] for name in ("bee", "cat"))
    assert population_preference(right, wrong)[0] > 0.7
