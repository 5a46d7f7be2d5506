"""Hand-computed values, an independent bootstrap, and coverage on simulated data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reports.adjustment import adjusted, stands_out
from reports.anova import Crossed
from reports.clusters import clustered_interval
from reports.ranking import Pair, compact_letters, compare_pairs, standings
from reports.seed_variance import Array, fit_seed_prior
from reports.statistics import (
    LEVEL,
    Interval,
    estimate_means,
    mean_intervals,
    share_intervals,
    win_indicator,
)


def mean_interval(table: Array) -> Interval:
    """The interval of the only row of a table."""
    (interval,) = mean_intervals([table])
    return interval


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


def test_two_seeds_alone_by_hand() -> None:
    # Two seeds, three prompts, and no other row to learn from:
    #   seed 0:  1  2  6      mean 3      M_P = 2 (4 + 0 + 4) / 2      = 8
    #   seed 1:  3  6  6      mean 5      M_S = 3 (1 + 1) / 1          = 6
    #   means:   2  4  6      mean 4      rest = d - prompt - seed + mean: 0 -1 1 / 0 1 -1, M_R = 4 / 2 = 2
    rows = Crossed.of([np.array([[1.0, 2.0, 6.0], [3.0, 6.0, 6.0]])])
    assert [rows.mean[0], rows.prompt_square[0], rows.seed_square[0], rows.rest_square[0]] == pytest.approx(
        [4, 8, 6, 2]
    )
    estimate = estimate_means(rows)
    # A = 8 - 2 = 6 on 2 degrees, T = 6 on 1: variance 12 / 6, degrees 12^2 / (36 / 2 + 36 / 1)
    assert estimate.variance[0] == pytest.approx(2, rel=1e-9)
    assert estimate.degrees[0] == pytest.approx(144 / 54, rel=1e-9)


def test_a_row_alone_learns_nothing_and_rows_that_agree_are_pooled() -> None:
    alone = fit_seed_prior([3.0], [1.0], [2])
    square, degrees = alone.each_row().moderated([3.0], [2])
    assert (square[0], degrees[0]) == pytest.approx((3.0, 2.0))
    # Equal squares of 27 rows: the scale is that square, and each row is worth far more than its own two degrees.
    many = fit_seed_prior(np.full(27, 3.0), np.ones(27), np.full(27, 2))
    square, degrees = many.each_row().moderated(np.full(27, 3.0), np.full(27, 2))
    assert square == pytest.approx(np.full(27, 3.0), rel=1e-6)
    assert degrees[0] > 10
    # The row of one seed takes the scale, and a row that differs more keeps part of that.
    square, degrees = many.each_row().moderated([np.nan, 30.0], [0, 2])
    assert square[0] == pytest.approx(3.0, rel=1e-6)
    assert 3.0 < square[1] < 30.0


def test_the_interval_does_not_jump_where_seeds_differ_as_much_as_chance() -> None:
    """Around M_S = M_R = 2 of the table above, and around M_P = M_R, the ends change as smoothly as the data."""
    table = np.array([[1.0, 2.0, 6.0], [3.0, 6.0, 6.0]])
    for shift in (-1 / 3**0.5, 1 - 3**0.5):
        ends = [mean_interval(table + np.array([[change], [-change]])).high for change in (shift - 1e-7, shift + 1e-7)]
        assert ends[0] == pytest.approx(ends[1], abs=1e-5)


def test_ties_count_half_and_direction_is_respected() -> None:
    candidate, base = np.array([[[1.0], [2.0], [3.0]]]), np.array([[2.0], [2.0], [1.0]])
    assert win_indicator(candidate, base).ravel().tolist() == [0.0, 0.5, 1.0]
    assert win_indicator(candidate, base, higher_is_better=False).ravel().tolist() == [1.0, 0.5, 0.0]


def test_every_win_leaves_room_below() -> None:
    """50 of 50: the mid-P lower end is 0.05^(1/50) with a normal quantile; Student's of 49 degrees is a little lower."""
    (rate,) = share_intervals([np.ones((1, 50, 1))])
    assert (rate.mean, rate.high) == (1.0, 1.0)
    assert 0.90 < rate.low < 0.05 ** (1 / 50)


def test_a_share_agrees_with_the_exact_test_of_many_prompts() -> None:
    # 260 of 400 independent prompts: Clopper-Pearson [0.6010, 0.6967], and a mid-P interval lies inside.
    (rate,) = share_intervals([(np.arange(400) < 260).astype(float)[None]])
    assert (rate.low, rate.high) == pytest.approx((0.602, 0.696), abs=2e-3)
    assert rate.p_value is not None
    assert rate.p_value < 1e-7


def test_where_nothing_varies_there_is_no_interval_and_no_test() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 2))
    (rate,) = share_intervals([win_indicator(np.stack([scores, scores]), scores)])
    assert (rate.mean, rate.ends, rate.half, rate.p_value) == (0.5, None, None, None)
    # equal differences, up to the rounding of their subtraction, and none at all
    for change in (0.1, 0.0):
        same = mean_interval((scores + change) - scores)
        assert same.mean == pytest.approx(change)
        assert (same.low, same.high, same.p_value) == (None, None, None)
    # rows that always win, and one that never does
    always, never = np.ones((2, 12, 1)), np.zeros((2, 12, 1))
    pairs = compare_pairs({1: always, 2: always, 3: never}, dict.fromkeys((1, 2, 3), (0, 1)))
    assert [(each.difference.mean, each.difference.ends, each.difference.p_value) for each in pairs] == [
        (0, None, None), (1, None, None), (1, None, None),
    ]  # fmt: skip
    alike = clustered_interval(np.array([3.0, 3.0]), ["a", "b"])
    assert (alike.mean, alike.ends) == (3, None)


def test_holm_by_hand() -> None:
    # Sorted 0.01 0.02 0.04: times 3, 2, 1 are 0.03, 0.04, 0.04.
    found = adjusted({name: Interval(0, 0, 0, p_value=p) for name, p in {"a": 0.02, "b": 0.01, "c": 0.04}.items()})
    assert {name: each.adjusted for name, each in found.items()} == pytest.approx({"a": 0.04, "b": 0.03, "c": 0.04})
    assert stands_out(found["a"])
    assert not stands_out(Interval(1, 0, 2))


def test_letters_and_ranks_by_hand() -> None:
    # 0 is better than 2 and 3, 1 is better than 3: a = {0, 1}, b = {1, 2}, c = {2, 3}.
    assert compact_letters([0, 1, 2, 3], {frozenset(pair) for pair in ((0, 2), (0, 3), (1, 3))}) == {
        0: "a", 1: "ab", 2: "bc", 3: "c",
    }  # fmt: skip
    sure, open_ = Interval(0.1, 0, 1, adjusted=0.01), Interval(0.1, 0, 1, adjusted=0.5)
    pairs = [Pair(0, 1, open_), Pair(0, 2, sure), Pair(1, 2, open_)]
    found = standings({0: 0.9, 1: 0.8, 2: 0.7}, pairs)
    assert [(each.rank, each.best, each.worst, each.groups) for each in found.values()] == [
        (1, 1, 2, "a"), (2, 1, 3, "ab"), (3, 2, 3, "b"),
    ]  # fmt: skip


def test_a_rank_counts_the_differences_that_its_interval_is_about() -> None:
    """On their common seed 0 is better than 1, whose mean over all its seeds is higher; 2 has no seed in common with them."""
    sure = Interval(0.1, 0.05, 0.15, adjusted=0.01)
    found = standings({0: 0.5, 1: 0.6, 2: 0.55}, [Pair(0, 1, sure)])
    assert [(each.rank, each.best, each.worst, each.groups) for each in found.values()] == [
        (2, 1, 2, "a"), (2, 2, 3, "b"), (2, None, None, ""),
    ]  # fmt: skip


def test_a_rank_that_nothing_tested_stands_alone() -> None:
    found = standings({0: 0.9, 1: 0.8}, [Pair(0, 1, Interval(0.1, 0.05, 0.15))])
    assert [(each.rank, each.best, each.worst, each.groups) for each in found.values()] == [
        (1, None, None, ""), (2, None, None, ""),
    ]  # fmt: skip


def test_pairs_of_rows_without_seeds_do_not_learn_from_trained_ones() -> None:
    """The base at two guidance scales, alone and beside two rows whose seeds differ much."""
    random = np.random.default_rng(1)
    fixed = {1: random.random((1, 40, 2)), 2: random.random((1, 40, 2))}
    trained = {number: random.random((3, 40, 2)) / 4 + np.array([0, 0.3, 0.6])[:, None, None] for number in (3, 4)}
    seeds: dict[int, tuple[int, ...]] = {1: (), 2: (), 3: (0, 1, 2), 4: (0, 1, 2)}
    (alone,) = compare_pairs(fixed, seeds)
    beside = {(pair.one, pair.other): pair.difference for pair in compare_pairs(fixed | trained, seeds)}
    assert beside[1, 2].half == alone.difference.half
    assert {pair: each.seeds for pair, each in beside.items()} == {
        (1, 2): 0, (1, 3): 3, (1, 4): 3, (2, 3): 3, (2, 4): 3, (3, 4): 3,
    }  # fmt: skip


def test_one_trained_row_against_many_fixed_ones_is_one_measurement_of_seeds() -> None:
    """All differences have the seeds of the same row: together they say no more about seeds than one of them."""
    random = np.random.default_rng(1)
    row = random.random((3, 40, 1)) / 4 + np.array([0, 0.3, 0.6])[:, None, None]
    constants = {number: np.full((1, 40, 1), 0.1 * number) for number in (1, 2, 3)}
    seeds: dict[int, tuple[int, ...]] = {0: (0, 1, 2), 1: (), 2: (), 3: ()}
    (single,) = compare_pairs({0: row, 1: constants[1]}, seeds)
    pairs = compare_pairs({0: row, **constants}, seeds)
    assert [pair.difference.half for pair in pairs if pair.one == 0] == pytest.approx([single.difference.half] * 3)


def test_pairs_are_compared_on_common_seeds() -> None:
    random = np.random.default_rng(1)
    one, other = random.random((3, 40, 1)), random.random((2, 40, 1))
    (pair,) = compare_pairs({1: one, 4: other}, {1: (0, 1, 2), 4: (2, 5)})
    assert (pair.one, pair.other) == (1, 4)
    assert pair.difference.mean == pytest.approx(float((one[2] - other[0]).mean()))
    assert pair.difference.p_value is None  # one common seed says nothing about how seeds differ
    assert compare_pairs({1: one, 4: other}, {1: (0, 1, 2), 4: (5, 6)}) == ()
    (fixed,) = compare_pairs({1: one, 4: other[:1]}, {1: (0, 1, 2), 4: ()})
    assert fixed.difference.mean == pytest.approx(float((one - other[:1]).mean()))
    assert fixed.difference.p_value is not None


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


def test_ignoring_seeds_would_not_cover() -> None:
    """The coverage test can fail: counting every (seed, prompt) as independent covers far less."""
    random = np.random.default_rng(4)
    hits = 0
    for _ in range(100):
        flat = simulate(random, 5, 60, of_prompts=0.5, of_seeds=0.5).reshape(1, -1)
        interval = mean_interval(flat)
        hits += interval.low < 0 < interval.high
    assert hits / 100 < 0.7
