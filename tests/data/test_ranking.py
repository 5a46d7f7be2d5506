"""Rankings, calibrated rewards, Pareto pairs and density ratios, by worked numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
from workshop import Workshop

from algorithms.density import calibration, density_ratios, fit_logistic
from bench import UserError
from bench.data.ranking import (
    Verdict,
    both_orders,
    calibrated_rewards,
    mean_chances,
    pareto_pairs,
    rank_by_comparison,
    win_shares,
)


class TestCalibration:
    def test_worked_rewards(self) -> None:
        expected = [0.744771662603, 0.459180222933, 0.190189955733, 0.605858158731]
        assert calibrated_rewards(np.array([1, 0, -1, 0.5])).tolist() == pytest.approx(expected, abs=1e-9)

    def test_worked_chances_of_the_papers_figure(self) -> None:
        column_beats_row = np.array([[np.nan, 0.05, 0.35], [0.95, np.nan, 0.75], [0.65, 0.25, np.nan]])
        assert mean_chances(column_beats_row.T).tolist() == pytest.approx([0.80, 0.15, 0.55], abs=1e-9)

    def test_several_rewards_and_captions_at_once(self) -> None:
        rewards = np.random.default_rng(0).normal(size=(2, 5, 4))
        assert calibrated_rewards(rewards)[1, 3].tolist() == calibrated_rewards(rewards[1, 3]).tolist()


class TestParetoPairs:
    POINTS: ClassVar[dict[int, tuple[int, int]]] = {
        1: (831, 167),
        2: (928, 144),
        3: (981, 57),
        4: (791, 79),
        5: (865, 18),
        6: (802, 119),
        7: (861, 119),
        9: (919, 62),
    }

    def test_worked_example_of_the_paper(self) -> None:
        names = list(self.POINTS)
        rewards = np.array(list(self.POINTS.values()), dtype=float).T
        pairs = [(names[i], names[j]) for i, j in pareto_pairs(rewards)]
        assert pairs == [(1, 4), (2, 4), (2, 5), (3, 5)]

    def test_one_reward_gives_the_best_and_the_worst(self) -> None:
        assert pareto_pairs(np.array([[0.2, 0.9, 0.4, 0.1]])) == [(1, 3)]

    def test_duplicates_are_left_out(self) -> None:
        assert pareto_pairs(np.array([[2.0, 2, 1], [2, 2, 1]])) == [(0, 2)]

    def test_opposed_rewards_give_none(self) -> None:
        assert pareto_pairs(np.array([[1.0, 2, 3], [3, 2, 1]])) == []


class TestRanking:
    SCORES = (0.2, 0.9, 0.4, 0.1)

    def compare(self, log: list[tuple[int, int]]) -> Callable[[int, int], Verdict]:
        def judge(one: int, other: int) -> Verdict:
            log.append((one, other))
            return "first" if self.SCORES[one] >= self.SCORES[other] else "second"

        return judge

    def test_worked_example(self) -> None:
        log: list[tuple[int, int]] = []
        assert rank_by_comparison(4, self.compare(log)) == [1, 2, 0, 3]
        assert len(log) == 6

    def test_the_first_round_finds_the_best_in_three_comparisons(self) -> None:
        log: list[tuple[int, int]] = []
        rank_by_comparison(4, self.compare(log))
        assert log[:3] == [(0, 1), (1, 2), (1, 3)]

    def test_a_judge_who_always_likes_the_first_place_says_nothing(self) -> None:
        compare = both_orders(lambda one, other: True)
        assert compare(0, 1) == "tie"
        assert rank_by_comparison(3, compare) == [0, 1, 2]

    def test_a_judge_who_looks_is_believed(self) -> None:
        compare = both_orders(lambda one, other: self.SCORES[one] > self.SCORES[other])
        assert (compare(0, 1), compare(1, 0)) == ("second", "first")

    def test_worked_win_shares(self) -> None:
        assert win_shares(np.array([[3, 1, 2], [0.2, 0.5, 0.1]])).tolist() == [0.75, 0.5, 0.25]


class TestDensity:
    def test_worked_calibration(self) -> None:
        value = calibration(np.array([0.8, 0.3]), np.array([1.0, 2.0]), np.array([0.6, 0.4]))
        assert value == pytest.approx(1.0297766749, abs=1e-9)

    def test_the_golden_source_is_recognised(self, workshop: Workshop) -> None:
        rng = np.random.default_rng(0)
        sources = [("human", "human") if row % 2 else ("machine", "machine") for row in range(40)]
        features = rng.normal(size=(40, 3, 5))
        features[1::2, 1:, 0] += 3
        data = dataclasses.replace(workshop.data, sources=sources)
        ratios, note = density_ratios(data, "human", lambda: features)
        assert ratios.mean() == pytest.approx(1)
        assert ratios[1::2].mean() > 1.3
        assert ratios[::2].mean() < 0.7
        assert 0 < note["effective_sample_size"] < 40

    def test_one_source_weighs_every_pair_alike(self, workshop: Workshop) -> None:
        ratios, note = density_ratios(workshop.data, None, lambda: pytest.fail("features are not needed"))
        assert set(ratios.tolist()) == {1.0}
        assert note["why"] == "the data names 0 sources"

    def test_an_unknown_golden_source_is_refused_with_the_names(self, workshop: Workshop) -> None:
        data = dataclasses.replace(workshop.data, sources=[("sdxl", "sd21")] * 40)
        with pytest.raises(UserError, match=r"golden='human' is not a source .* of sd21, sdxl"):
            density_ratios(data, "human", lambda: np.zeros((40, 3, 2)))

    def test_logistic_regression_finds_a_known_direction(self) -> None:
        rng = np.random.default_rng(1)
        inputs = rng.normal(size=(4000, 2))
        labels = rng.uniform(size=4000) < 1 / (1 + np.exp(-(inputs[:, 0] + 0.5)))
        weights = fit_logistic(inputs, labels)
        assert weights.tolist() == pytest.approx([0.95, 0, 0.5], abs=0.12)
