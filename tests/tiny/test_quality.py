from __future__ import annotations

import numpy as np
import pytest

from bench import UserError
from bench.tiny import ASSETS, world
from bench.tiny.checker import Checker
from bench.tiny.quality import (
    agreement,
    agreement_on,
    correlation,
    gain_of_best,
    judge_figures,
    measure,
    read_requests,
    voter_figures,
)
from bench.tiny.voters import PROPERTIES, TASTE

GOLD = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 7.0]])


def test_agreement_counts_pairs_within_a_prompt_that_differ_in_gold() -> None:
    # Prompt 1: of its pairs (1,2) (1,3) (2,3) the judge has the first wrong.  Prompt 2: (1,2) does not count, one of two is a tie.
    scores = np.array([[2.0, 1.0, 3.0], [0.0, 9.0, 9.0]])
    assert agreement(scores, GOLD) == pytest.approx((0 + 1 + 1 + 1 + 0.5) / 5)
    assert agreement(GOLD, GOLD) == 1
    assert agreement(-GOLD, GOLD) == 0


def test_agreement_where_exactly_one_picture_is_right() -> None:
    right = np.array([[1.0, 0.0, 1.0], [np.nan, np.nan, np.nan]])
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert agreement_on(scores, right) == (0.5, 2)
    share, count = agreement_on(scores, np.ones((2, 3)))
    assert np.isnan(share)
    assert count == 0


def test_gain_of_the_best_is_over_a_random_picture() -> None:
    assert gain_of_best(GOLD, GOLD) == pytest.approx(((3 - 2) + (7 - 17 / 3)) / 2)
    assert gain_of_best(-GOLD, GOLD) == pytest.approx(((1 - 2) + (5 - 17 / 3)) / 2)


def test_correlation_leaves_out_prompts_without_variation() -> None:
    assert correlation(np.array([[3.0, 2.0, 1.0], [4.0, 4.0, 4.0]]), GOLD) == pytest.approx(-1)


def test_a_judge_that_is_gold_is_perfect() -> None:
    figures = judge_figures(GOLD, GOLD, {"object": np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])})
    assert list(figures.values()) == pytest.approx([1, 1, 1, 1])
    assert "prefers the right object (2 pairs)" in figures


def test_voters_of_pictures_that_differ_in_the_object_alone() -> None:
    values = np.zeros((1, 2, len(PROPERTIES)))
    values[0, 0, PROPERTIES.index("right_object")] = 1
    figures = voter_figures(values)
    assert figures["mean max(p, 1 - p)"] == pytest.approx(0.815056, abs=1e-6)  # see test_voters
    assert figures["gold gained by the best of 2"] == pytest.approx(TASTE["right_object"] / 2)
    assert figures["gold, deviation within a prompt"] == pytest.approx(TASTE["right_object"] / np.sqrt(2))


def test_a_prompt_from_elsewhere_is_named() -> None:
    with pytest.raises(UserError, match="'a bee on a mauve background' has the word 'mauve'"):
        read_requests(["a bee on a red background", "a bee on a mauve background"])


def test_properties_and_named_attributes_of_drawn_scenes() -> None:
    scene = world.Scene("apple", "blue", size=0.6, x=0.5, y=0.5, tilt=0.0, vividness=1.0, texture="plain")
    picture = np.asarray(world.render(scene))
    prompts = ["an apple on a blue background", "a cat on a striped red background on the left"]
    values, right = measure(np.stack([[picture], [picture]]), prompts, Checker.load(ASSETS / "checker"))
    assert values.shape == (2, 1, len(PROPERTIES))
    assert [right[name][0, 0] for name in ("object", "colour")] == [1, 1]
    assert np.isnan([right[name][0, 0] for name in ("size", "place", "texture")]).all()
    assert [right[name][1, 0] for name in ("object", "colour", "place", "texture")] == [0, 0, 0, 0]
    assert np.isnan(right["size"][1, 0])
