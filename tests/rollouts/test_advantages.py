"""Advantages of every convention, worked by hand."""

from __future__ import annotations

import pytest
import torch
from worked import assert_exact, double

from bench.rollouts.advantages import ACROSS_PROMPTS, CONVENTIONS, Convention, advantages, combined_advantages

ONE = double([[1, 2, 3, 6]])
TWO = double([[0.2, 0.5, 0.1, 0.4]])


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        ("flow-grpo-group", [-1.0689878278, -0.5344939139, 0, 1.6034817418]),
        ("dance", [-0.9258200955, -0.4629100477, 0, 1.3887301432]),
        # deviations 14 ** 0.5 / 2 of the population, (14 / 3) ** 0.5 of the sample
        ("flow-factory", [-1.0690449676, -0.5345224838, 0, 1.6035674515]),
        ("verl-omni", [-0.9257772446, -0.4628886223, 0, 1.3886658669]),
        ("gardo", [-2, -1, 0, 3]),
        ("ddpo", [-1.0690449619, -0.5345224810, 0, 1.6035674429]),
    ],
)
def test_one_group_by_hand(convention: Convention, expected: list[float]) -> None:
    assert_exact(advantages(ONE, convention), [expected])


def test_the_deviation_of_all_rewards_by_hand() -> None:
    found = advantages(double([[1, 3], [2, 2.2]]), "flow-grpo")
    assert_exact(found, [[-1.4035277960, 1.4035277960], [-0.1403527796, 0.1403527796]])


def test_without_groups_the_mean_is_that_of_all_rewards() -> None:
    # mean 2.5, variance 1.25
    found = advantages(double([[1, 2], [3, 4]]), "ddpo")
    root = 1.25**0.5 + 1e-8
    assert_exact(found, [[-1.5 / root, -0.5 / root], [0.5 / root, 1.5 / root]])


@pytest.mark.parametrize("convention", [name for name in CONVENTIONS if name != "ddpo"])
def test_they_sum_to_zero_in_each_group_and_are_zero_without_spread(convention: Convention) -> None:
    rewards = torch.randn(5, 6, generator=torch.manual_seed(0), dtype=torch.float64)
    rewards[2] = 0.3
    found = advantages(rewards, convention)
    assert_exact(found.sum(1), [0] * 5)
    assert_exact(found[2], [0] * 6)
    assert not found[2].any()  # exactly, whatever their mean is rounded to


@pytest.mark.parametrize(
    ("convention", "combination", "expected"),
    [
        ("dance", "advantages", [-1.4735426230, 0.6325350073, -1.0954450550, 1.9364526707]),
        ("dance", "rewards", [-0.9486832938, -0.3614031595, -0.0903507899, 1.4004372432]),
    ],
)
def test_two_rewards_by_hand(convention: Convention, combination: str, expected: list[float]) -> None:
    found = combined_advantages([ONE, TWO], [1, 1], convention, combination)  # type: ignore[arg-type]
    assert_exact(found, [expected])


@pytest.mark.parametrize("convention", sorted(CONVENTIONS.keys() - ACROSS_PROMPTS))
def test_gdpo_leaves_a_prompt_without_spread_at_zero(convention: Convention) -> None:
    one = double([[3, 3, 3, 3], [1, 2, 3, 6], [0, 1, 5, 2]])
    found = combined_advantages([one, 0.1 * one], [1, 1], convention, "gdpo")
    assert found[0].tolist() == [0, 0, 0, 0]
    assert (found[1:] != 0).any(1).all()


def test_gdpo_standardises_the_sum_over_the_batch() -> None:
    # Flow-Factory's floor leaves these groups alone, so the sum is that of plain z-scores.
    summed = combined_advantages([ONE, TWO], [1, 1], "flow-factory", "advantages")
    assert_exact(summed, [[-1.7015004997, 0.7303885802, -1.2649110641, 2.2360229835]])
    found = combined_advantages([ONE, TWO], [1, 1], "flow-factory", "gdpo")
    assert found.mean().item() == pytest.approx(0, abs=1e-12)
    assert found.std(correction=0).item() == pytest.approx(1, abs=1e-7)
    torch.testing.assert_close(found / found[0, 3], summed / summed[0, 3], rtol=0, atol=1e-12)
