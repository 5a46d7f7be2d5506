from __future__ import annotations

import numpy as np
import pytest

from bench.tiny.population import TASTE, expected_utility, personal_utility, population_preference, vote_variance
from bench.tiny.voters import PROPERTIES

RANDOM = np.random.default_rng(0)
PAIRS = RANDOM.uniform(size=(40, 2, len(PROPERTIES)))


def only(**values: float) -> np.ndarray:
    return np.array([[values.get(name, 0.0) for name in PROPERTIES]])


def test_utility_worked_by_hand() -> None:
    assert expected_utility(only(right_object=1, large=0.5, textured=1)) == pytest.approx([3 + 1.5 - 1.5])
    likes_texture = np.array([-2.0 if name == "textured" else 0.0 for name in PROPERTIES])
    assert personal_utility(only(right_object=1, textured=1), likes_texture) == pytest.approx([3 + 1.5])


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
    # The margin is 3 (1 + z).  Its expected sigmoid by a Riemann sum over z on a fine grid: 0.805614.
    z = np.linspace(-9, 9, 40_001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    expected = (density / (1 + np.exp(-3 * (1 + z)))).sum() * (z[1] - z[0])
    assert expected == pytest.approx(0.805614, abs=1e-6)
    assert population_preference(only(right_object=1), only()) == pytest.approx([expected], abs=1e-6)


def test_the_parts_of_a_votes_variance_sum_to_a_quarter() -> None:
    parts = vote_variance(PAIRS[:, 0], PAIRS[:, 1])
    assert parts.taste + parts.person + parts.coin == pytest.approx(0.25)
    assert min(parts.taste, parts.person, parts.coin) > 0.01
    same = vote_variance(PAIRS[:, 0], PAIRS[:, 0])
    assert (same.taste, same.person, same.coin) == pytest.approx((0, 0, 0.25))


def test_every_property_has_a_weight() -> None:
    assert tuple(TASTE) == PROPERTIES
