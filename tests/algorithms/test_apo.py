"""APO's losses of the reward model, with the numbers of the specification."""

from __future__ import annotations

import pytest
import torch
from worked import assert_exact, double

from algorithms.apo import APO, adversarial_losses
from bench.training.reward_fit import pairwise_loss

PEOPLE = double([0.4, -0.2]) - double([0.1, 0.3])
"""Scores of the pictures that people prefer, minus those of the others."""
SAMPLES = double([0.8, 0.5]) - double([0.2, 0.6])
"""Scores of gold minus those of samples."""


def test_the_losses_of_the_reward_model_by_hand() -> None:
    assert_exact(pairwise_loss(PEOPLE, double([1, 1])).mean(), 0.7642161143)
    assert_exact(adversarial_losses(SAMPLES, "ranking").mean(), 0.5909423053)
    assert_exact(adversarial_losses(SAMPLES, "diff").mean(), -0.25)


@pytest.mark.parametrize(("algorithm", "total"), [(APO(), 0.7789896720), (APO(mode="diff"), 0.7579661143)])
def test_the_whole_loss_by_hand(algorithm: APO, total: float) -> None:
    people = pairwise_loss(PEOPLE, double([1, 1])).mean()
    assert_exact(people + algorithm.opponent_losses(SAMPLES).mean(), total)


def test_the_weight_is_shared_by_the_samples_of_a_caption() -> None:
    one, four = (APO(adversarial=0.4, judge_samples=count).opponent_losses(SAMPLES) for count in (1, 4))
    torch.testing.assert_close(one, 4 * four)
