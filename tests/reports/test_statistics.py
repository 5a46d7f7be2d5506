"""Hand-computed values, an independent bootstrap, and coverage on simulated data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reports.statistics import (
    LEVEL,
    Array,
    Interval,
    clustered_interval,
    crossed_variance,
    mean_interval,
    win_indicator,
    win_rate,
)


def simulate(random: np.random.Generator, seeds: int, prompts: int, *, of_prompts: float, of_seeds: float) -> Array:
    """Crossed differences around 0 with a rest of deviation 1."""
    return (
        of_prompts * random.normal(size=(1, prompts))
        + of_seeds * random.normal(size=(seeds, 1))
        + random.normal(size=(seeds, prompts))
    )


def bootstrap_interval(table: Array, *, seed: int, draws: int = 2000) -> Interval:
    """Percentile interval of a paired bootstrap that draws prompts and seeds, crossed, of differences (seeds, prompts)."""
    seeds, prompts = table.shape
    random = np.random.default_rng(seed)
    seed_counts = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    prompt_counts = random.multinomial(prompts, np.full(prompts, 1 / prompts), size=draws)
    means = np.einsum("ds,sp,dp->d", seed_counts, table, prompt_counts, optimize=True) / table.size
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(table.mean()), float(low), float(high), LEVEL)


def test_one_seed_is_the_paired_t_interval() -> None:
    # Mean 4, deviations -3 -1 1 3: sum of squares 20, variance 20/3, variance of the mean 5/3; t(3, 97.5 %) = 3.182446.
    interval = mean_interval(np.array([[1.0, 3.0, 5.0, 7.0]]))
    half = 3.182446305284263 * math.sqrt(5 / 3)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((4, 4 - half, 4 + half), rel=1e-9)


def test_clustered_interval_by_hand() -> None:
    # Mean 4, sums of residuals -4 and 4: variance 2 / 1 * (16 + 16) / 4^2 = 4; t(1, 97.5 %) = 12.706205.
    two = clustered_interval(np.array([1.0, 5.0, 3.0, 7.0]), ["a", "b", "a", "b"])
    assert (two.mean, two.high) == pytest.approx((4, 4 + 2 * 12.706204736174694), rel=1e-9)
    # One value a cluster is the ordinary interval: t(3, 97.5 %) as above.
    ordinary = mean_interval(np.array([[1.0, 3.0, 5.0, 7.0]]))
    single = clustered_interval(np.array([1.0, 3.0, 5.0, 7.0]), [0, 1, 2, 3])
    assert (single.low, single.high) == pytest.approx((ordinary.low, ordinary.high), rel=1e-9)
    # Uneven clusters: mean 4, residuals -3, and -1 1 3 together 3: variance 2 * 18 / 16.
    uneven = clustered_interval(np.array([1.0, 3.0, 5.0, 7.0]), ["a", "b", "b", "b"])
    assert uneven.high == pytest.approx(4 + 1.5 * 12.706204736174694, rel=1e-9)
    with pytest.raises(ValueError, match="1 clusters"):
        clustered_interval(np.array([1.0, 2.0]), ["a", "a"])


def test_images_of_a_prompt_are_no_new_prompts() -> None:
    averaged = np.array([[1.0, 3.0, 5.0, 7.0]])
    images = np.stack([averaged - 1, averaged + 1], axis=2)
    assert mean_interval(images) == mean_interval(averaged)


def test_crossed_variance_by_hand() -> None:
    # Two seeds, three prompts:
    #   seed 0:  1  2  6      mean 3      M_P = 2 (4 + 0 + 4) / 2      = 8
    #   seed 1:  3  6  6      mean 5      M_S = 3 (1 + 1) / 1          = 6
    #   means:   2  4  6      mean 4      rest = d - prompt - seed + mean: 0 -1 1 / 0 1 -1, M_R = 4 / 2 = 2
    variance = crossed_variance(np.array([[1.0, 2.0, 6.0], [3.0, 6.0, 6.0]]))
    assert variance.prompts == pytest.approx(8 / 6, rel=1e-12)
    assert variance.seeds == pytest.approx((6 - 2) / 6, rel=1e-12)
    # (8 + 6 - 2)^2 / (8^2 / 2 + 6^2 / 1 + 2^2 / 2) = 144 / 70
    assert variance.degrees == pytest.approx(144 / 70, rel=1e-12)


def test_seeds_that_differ_less_than_chance_add_nothing() -> None:
    # Both seeds have mean 2, so M_S = 0 < M_R: the seeds' part is 0 and the degrees are the prompts'.
    variance = crossed_variance(np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 3.0]]))
    assert (variance.seeds, variance.degrees) == (0.0, 2)


def test_degrees_are_never_below_those_of_the_smaller_factor() -> None:
    # Two prompts with equal means, so M_P = 0; M_S = 2 (2^2 + 1 + 1) / 2 and the rest +-3 outweigh what is left of the sum.
    table = np.array([[2.0 + 3, 2.0 - 3], [-1.0 - 1, -1.0 + 1], [-1.0 - 2, -1.0 + 2]])
    variance = crossed_variance(table)
    # M_P = 0, M_S = 2 * 6 / 2 = 6, M_R = (9 + 9 + 1 + 1 + 4 + 4) / 2 = 14: the seeds' part is 0.
    assert (variance.prompts, variance.seeds, variance.degrees) == (0.0, 0.0, 1)
    # Scaling the seeds' means by 2 gives M_S = 24; (24 - 14)^2 / (24^2 / 2 + 14^2 / 2) = 100 / 386 < 1.
    wider = table + np.array([[2.0], [-1.0], [-1.0]])
    assert crossed_variance(wider).degrees == 1
    assert crossed_variance(wider).seeds == pytest.approx(10 / 6, rel=1e-12)


def test_ties_count_half_and_direction_is_respected() -> None:
    candidate, base = np.array([[[1.0], [2.0], [3.0]]]), np.array([[2.0], [2.0], [1.0]])
    assert win_indicator(candidate, base).ravel().tolist() == [0.0, 0.5, 1.0]
    assert win_indicator(candidate, base, higher_is_better=False).ravel().tolist() == [1.0, 0.5, 0.0]


def test_win_rate_by_hand_and_clipped() -> None:
    # Indicators 0, 1/2, 1, 1: mean 5/8, squares (25 + 1 + 9 + 9) / 64 = 44/64, variance of the mean 44 / 64 / 3 / 4.
    candidate, base = np.array([[[0.0], [1.0], [2.0], [2.0]]]), np.ones((4, 1))
    half = 3.182446305284263 * math.sqrt(44 / 64 / 12)
    rate = win_rate(candidate, base)
    assert rate.mean == 5 / 8
    assert 5 / 8 + half > 1  # so the clip is at work
    assert 5 / 8 - half < 0
    assert rate.low == 0.0
    assert rate.high == 1.0


def test_win_rate_of_equal_images_is_one_half() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 2))
    rate = win_rate(np.stack([scores, scores]), scores)
    assert (rate.mean, rate.low, rate.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("shape", [(3,), (2, 1), (0, 4), (1, 1, 5), (1, 2, 3, 4)])
def test_shapes_without_an_interval_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least two prompts"):
        mean_interval(np.zeros(shape))


@pytest.mark.parametrize(("seeds", "of_seeds"), [(1, 0.0), (40, 0.5)])
def test_interval_agrees_with_the_bootstrap(seeds: int, of_seeds: float) -> None:
    table = simulate(np.random.default_rng(2), seeds, 400, of_prompts=2.0, of_seeds=of_seeds)
    exact, drawn = mean_interval(table), bootstrap_interval(table, seed=0, draws=8000)
    assert drawn.mean == exact.mean
    assert drawn.high - drawn.low == pytest.approx(exact.high - exact.low, rel=0.06)
    assert drawn.low == pytest.approx(exact.low, abs=0.06 * (exact.high - exact.low))


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("of_seeds", [0.0, 0.1, 0.5])
def test_intervals_cover_the_truth(seeds: int, of_seeds: float) -> None:
    random = np.random.default_rng(3)
    spread = of_seeds if seeds > 1 else 0.0  # a single seed cannot show how seeds differ
    hits = 0
    for _ in range(1000):
        interval = mean_interval(simulate(random, seeds, 60, of_prompts=0.5, of_seeds=spread))
        hits += interval.low < 0 < interval.high
    # Three deviations of a proportion of 0.95 over 1000 draws are 0.021; see the docstring for how far the method itself is off.
    assert 0.91 <= hits / 1000 <= 0.985


def test_ignoring_seeds_would_not_cover() -> None:
    """The coverage test can fail: counting every (seed, prompt) as independent covers far less."""
    random = np.random.default_rng(4)
    hits = 0
    for _ in range(400):
        flat = simulate(random, 5, 60, of_prompts=0.5, of_seeds=0.5).reshape(1, -1)
        interval = mean_interval(flat)
        hits += interval.low < 0 < interval.high
    assert hits / 400 < 0.6
