from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from workshop import Workshop, preference_columns, write_parquet

from algorithms.dpo import DPO, dpo_loss
from algorithms.inpo import InPO
from algorithms.smpo import SmPO, smpo_loss
from bench import Metric, MetricInfo, PairErrors, PairPredictions, UserError, sample_errors
from bench.data.preferences import PreferenceData
from bench.data.prepare import PrepareContext
from bench.data.reading import read_preferences

TARGET = [[0.5, -0.5], [1.0, 0.0]]
POLICY_WINNER = [[0.4, -0.3], [0.8, 0.1]]
POLICY_LOSER = [[0.1, -0.9], [1.5, -0.5]]
REFERENCE_WINNER = [[0.2, -0.2], [0.7, 0.3]]
REFERENCE_LOSER = [[0.3, -0.7], [1.2, -0.2]]
PREFERENCE = [0.516502544067, 0.518001532604]


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def errors() -> PairErrors:
    predictions = (POLICY_WINNER, POLICY_LOSER, REFERENCE_WINNER, REFERENCE_LOSER)
    return PairErrors(*(sample_errors(double(prediction), double(TARGET)) for prediction in predictions))


def argument(losses: Tensor) -> list[float]:
    """The z of losses that are -log sigmoid(z)."""
    return [-math.log(math.expm1(loss)) for loss in losses.tolist()]


def random_errors(count: int, dtype: torch.dtype = torch.float64) -> PairErrors:
    values = torch.rand(4, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return PairErrors(*values.to(dtype).unbind())


Loss = Callable[[PairErrors, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "dpo": DPO(beta=3.0).loss,
    "inpo": InPO(beta=3.0).loss,
    "smpo": SmPO(beta=3.0).loss,
}


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


class TestWorkedErrors:
    def test_errors_are_means_over_elements(self) -> None:
        expected = ([0.025, 0.025], [0.16, 0.25], [0.09, 0.09], [0.04, 0.04])
        for error, value in zip(errors(), expected, strict=True):
            assert error.tolist() == pytest.approx(value, abs=1e-9)

    def test_the_margin_is_minus_the_papers_delta(self) -> None:
        assert errors().margin.tolist() == pytest.approx([0.185, 0.275], abs=1e-9)

    def test_every_axis_but_the_first_is_averaged(self) -> None:
        prediction, target = torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
        target[1] = 3
        assert sample_errors(prediction, target).tolist() == [1, 9]


class TestWorkedDPO:
    @pytest.mark.parametrize("kind", [DPO, InPO])
    def test_beta_20(self, kind: type[DPO | InPO]) -> None:
        losses = kind(beta=20).loss(errors(), double([1.0, 1.0]))
        assert argument(losses) == pytest.approx([1.85, 2.75], abs=1e-9)
        assert losses.tolist() == pytest.approx([0.146035411055, 0.0619675890032], abs=1e-9)
        assert losses.mean().item() == pytest.approx(0.10400150002885432, abs=1e-9)

    @pytest.mark.parametrize("kind", [DPO, InPO])
    def test_beta_2000(self, kind: type[DPO | InPO]) -> None:
        losses = kind(beta=2000).loss(errors(), double([1.0, 1.0]))
        assert losses.tolist() == pytest.approx([4.52398178761e-81, 3.70695638783e-120], rel=1e-9, abs=0)
        assert losses.mean().item() == pytest.approx(2.261990893802976e-81, rel=1e-9, abs=0)

    def test_beta_2000_has_the_published_argument(self) -> None:
        swapped = PairErrors(*(errors()[place] for place in (1, 0, 3, 2)))
        # -log sigmoid(-z) is z to the last digit for such z.
        assert dpo_loss(swapped, beta=2000).tolist() == pytest.approx([185.0, 275.0], abs=1e-9)

    def test_the_papers_sums_with_beta_5_give_the_same_argument(self) -> None:
        # beta_sum = beta / (2 d): with sums over d = 2 elements the factor is 5, that is beta / 2 of beta = 10.
        sums = PairErrors(*(2 * error for error in errors()))
        assert argument(dpo_loss(sums, beta=10)) == pytest.approx([1.85, 2.75], abs=1e-9)

    def test_accuracy_counts_both_pairs(self) -> None:
        assert (errors().margin > 0).tolist() == [True, True]


class TestWorkedSmPO:
    def test_the_weights_are_the_published_ones(self) -> None:
        # At beta = 2 and a margin of 1 the argument is the weight.
        zero, one = double([0.0, 0.0]), double([1.0, 1.0])
        losses = smpo_loss(PairErrors(zero, one, zero, zero), double(PREFERENCE), beta=2, gamma=10)
        assert argument(losses) == pytest.approx([0.330050881343, 0.360030652071], abs=1e-9)

    def test_beta_20(self) -> None:
        losses = SmPO(beta=20).loss(errors(), double(PREFERENCE))
        assert argument(losses) == pytest.approx([0.610594130485, 0.990084293194], abs=1e-9)
        assert losses.mean().item() == pytest.approx(0.3748424624436528, abs=1e-9)

    def test_the_whole_batch_is_not_weighted_by_its_first_pair_as_in_the_released_code(self) -> None:
        mean = SmPO(beta=20).loss(errors(), double(PREFERENCE)).mean().item()
        assert abs(mean - 0.38634917733835616) > 0.01
        first = SmPO(beta=20).loss(errors(), double([PREFERENCE[0]] * 2)).mean().item()
        assert first == pytest.approx(0.38634917733835616, abs=1e-9)

    def test_beta_2000(self) -> None:
        losses = SmPO(beta=2000).loss(errors(), double(PREFERENCE))
        # The label of twelve digits leaves the argument, near 61, eight digits behind the point.
        assert losses.mean().item() == pytest.approx(1.517762607576358e-27, rel=1e-7, abs=0)
        assert argument(losses)[0] == pytest.approx(61.0594130485, abs=1e-7)

    def test_a_sure_label_and_gamma_1_is_dpo(self) -> None:
        sure = smpo_loss(errors(), double([1.0, 1.0]), beta=20, gamma=1)
        assert sure.tolist() == dpo_loss(errors(), beta=20).tolist()

    def test_an_even_label_teaches_nothing(self) -> None:
        assert SmPO().loss(errors(), double([0.5, 0.5])).tolist() == [math.log(2)] * 2


class Listed(Metric):
    """A scorer that has its scores in a list, in the order of the pairs."""

    info = MetricInfo(title="Listed", raw_range="-1 to 1", unit="cosine", source="the test")

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = scores

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        return {"scores": str(list(self.scores))}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return double(list(self.scores)[: len(images)])


def context_of(scorer: Metric, workshop: Workshop, folder: Path) -> PrepareContext:
    """A context in which every metric is ``scorer``."""
    model = workshop.model()
    return PrepareContext(lambda name: scorer, model, model.generation, folder / "cache")


LOW, HIGH = 0.11543526500463486, 0.28201571106910706
"""The smallest and the largest PickScore of Pick-a-Pic, as the released code states them."""


class TestSmoothedLabels:
    @pytest.fixture
    def prepared(
        self, tmp_path: Path, workshop: Workshop
    ) -> Callable[[list[tuple[float, float]]], tuple[PreferenceData, PrepareContext]]:
        def prepare(scores: list[tuple[float, float]]) -> tuple[PreferenceData, PrepareContext]:
            data = read_preferences(write_parquet(tmp_path / "pairs.parquet", preference_columns(len(scores))))
            context = context_of(Listed(list(itertools.chain(*scores))), workshop, tmp_path)
            return SmPO().prepare(data, context), context

        return prepare

    def test_the_published_scores_give_the_published_probabilities(self, prepared: Any) -> None:
        data, context = prepared([(0.2120, 0.2010), (0.2055, 0.2175), (LOW, HIGH)])
        first, second, _ = data.preference_0.tolist()
        assert first == pytest.approx(0.516502544067, abs=1e-9)  # image 0 wins
        assert 1 - second == pytest.approx(0.518001532604, abs=1e-9)  # image 1 wins
        assert context.notes == {"reward_range": [LOW, HIGH]}

    @pytest.mark.parametrize(
        ("points", "weight", "precision"),
        [(0.1, 0.030, 5e-4), (0.5, 0.150, 5e-4), (1, 0.300, 5e-4), (2, 0.600, 5e-4), (10 / 3, 0.997, 5e-4),
         (100 * (HIGH - LOW), 4.62, 5e-3)],
    )  # fmt: skip
    def test_the_weight_grows_with_the_difference_as_published(
        self, prepared: Any, points: float, weight: float, precision: float
    ) -> None:
        data, _ = prepared([(LOW + points / 100, LOW), (LOW, HIGH)])
        assert 10 * (2 * data.preference_0[0] - 1) == pytest.approx(weight, abs=precision)

    def test_the_reward_decides_the_winner_whatever_the_vote_was(self, prepared: Any) -> None:
        data, _ = prepared([(0.1, 0.2), (0.2, 0.1), (0.1, 0.3)])
        assert (data.preference_0 > 0.5).tolist() == [False, True, False]

    def test_scores_are_made_once_and_kept(self, tmp_path: Path, workshop: Workshop) -> None:
        data = read_preferences(write_parquet(tmp_path / "pairs.parquet", preference_columns(3)))
        calls = []

        class Counting(Listed):
            def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
                calls.append(len(images))
                return super().score(images, prompts)

        context = context_of(Counting([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), workshop, tmp_path)
        once, again = SmPO().prepare(data, context), SmPO().prepare(data, context)
        assert calls == [6]
        assert np.array_equal(once.preference_0, again.preference_0)

    def test_a_reward_that_tells_nothing_apart_is_refused(self, prepared: Any) -> None:
        with pytest.raises(UserError, match="gives the same score to every image of .*; use another reward"):
            prepared([(0.2, 0.2), (0.2, 0.2)])

    def test_a_reward_that_is_not_finite_is_refused(self, prepared: Any) -> None:
        with pytest.raises(UserError, match="not finite as float32, for image 3 of 4"):
            prepared([(0.2, 0.1), (0.2, math.nan)])


class TestProperties:
    def test_losses_are_not_reduced(self, loss: Loss) -> None:
        assert loss(random_errors(7), double([0.9] * 7)).shape == (7,)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_zero_margin_gives_exactly_log_2(self, loss: Loss, dtype: torch.dtype) -> None:
        policy = random_errors(5, dtype)
        same = PairErrors(policy[0], policy[1], policy[0], policy[1])
        assert same.margin.tolist() == [0] * 5
        assert (
            loss(same, torch.full((5,), 0.9, dtype=dtype)).tolist()
            == [torch.tensor(math.log(2), dtype=dtype).item()] * 5
        )

    def test_less_error_on_the_winner_and_more_on_the_loser_lowers_the_loss(self, loss: Loss) -> None:
        made = random_errors(6)
        winner, loser = made.policy_winner.requires_grad_(), made.policy_loser.requires_grad_()
        loss(made, double([0.9] * 6)).sum().backward()
        assert winner.grad is not None
        assert loser.grad is not None
        assert (winner.grad > 0).all()
        assert (loser.grad < 0).all()

    def test_the_reference_pulls_the_other_way(self, loss: Loss) -> None:
        made = random_errors(6)
        winner, loser = made.reference_winner.requires_grad_(), made.reference_loser.requires_grad_()
        loss(made, double([0.9] * 6)).sum().backward()
        assert winner.grad is not None
        assert loser.grad is not None
        assert (winner.grad < 0).all()
        assert (loser.grad > 0).all()

    def test_the_gradient_is_that_of_a_small_difference(self, loss: Loss) -> None:
        policy = random_errors(4)
        preference = double([0.9, 0.6, 1.0, 0.8])

        def total(winner: Tensor) -> Tensor:
            return loss(policy._replace(policy_winner=winner), preference)

        assert torch.autograd.gradcheck(total, policy.policy_winner.clone().requires_grad_())

    def test_swapping_the_images_and_the_label_changes_nothing_for_smoothed_labels(self) -> None:
        made, p = random_errors(6), double([0.9, 0.6, 1.0, 0.8, 0.5, 0.7])
        swapped = PairErrors(*(made[place] for place in (1, 0, 3, 2)))
        torch.testing.assert_close(
            smpo_loss(swapped, 1 - p, beta=3, gamma=10), smpo_loss(made, p, beta=3, gamma=10), rtol=0, atol=1e-12
        )

    def test_swapping_the_images_turns_the_argument_around(self, loss: Loss) -> None:
        made, p = random_errors(6), double([0.9] * 6)
        swapped = PairErrors(*(made[place] for place in (1, 0, 3, 2)))
        forward, backward = argument(loss(made, p)), argument(loss(swapped, p))
        assert backward == pytest.approx([-value for value in forward], abs=1e-9)

    def test_permuting_the_batch_permutes_the_losses(self, loss: Loss) -> None:
        made, p, order = random_errors(6), double([0.9, 0.6, 1.0, 0.8, 0.5, 0.7]), [3, 1, 5, 0, 2, 4]
        shuffled = PairErrors(*(error[order] for error in made))
        assert torch.equal(loss(shuffled, p[order]), loss(made, p)[order])

    def test_a_pair_has_the_same_loss_in_any_batch(self, loss: Loss) -> None:
        made, p = random_errors(6), double([0.9, 0.6, 1.0, 0.8, 0.5, 0.7])
        for row in range(6):
            single = PairErrors(*(error[row : row + 1] for error in made))
            assert torch.equal(loss(single, p[row : row + 1])[0], loss(made, p)[row])

    def test_the_label_of_a_hard_objective_is_who_wins_and_nothing_else(self) -> None:
        assert torch.equal(
            DPO().loss(random_errors(4), double([0.6] * 4)), DPO().loss(random_errors(4), double([1.0] * 4))
        )

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("size", [1e-30, 1.0, 1e4])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_losses_and_gradients_stay_finite_far_out(
        self, loss: Loss, dtype: torch.dtype, size: float, sign: int
    ) -> None:
        zero = torch.zeros(3, dtype=dtype)
        policy = torch.full((3,), size, dtype=dtype, requires_grad=True)
        made = PairErrors(zero, policy, zero, zero) if sign > 0 else PairErrors(policy, zero, zero, zero)
        losses = loss(made, torch.ones(3, dtype=dtype))
        losses.sum().backward()
        assert policy.grad is not None
        assert torch.isfinite(losses).all()
        assert torch.isfinite(policy.grad).all()
        assert (losses >= 0).all()


class TestPrecision:
    def test_equal_half_precision_predictions_give_a_margin_of_exactly_zero(self) -> None:
        source = torch.Generator().manual_seed(0)
        winner, loser = (torch.randn(4, 4, 8, 8, generator=source).bfloat16() for _ in range(2))
        target = torch.randn(4, 4, 8, 8, generator=source)
        made = PairErrors(*(sample_errors(side, target) for side in (winner, loser, winner, loser)))
        assert made.margin.tolist() == [0, 0, 0, 0]

    def test_errors_of_half_precision_predictions_are_float32(self) -> None:
        prediction, target = torch.full((1, 2), 0.1, dtype=torch.float16), torch.zeros(1, 2, dtype=torch.float16)
        error = sample_errors(prediction, target)
        assert error.dtype == torch.float32
        assert error.item() == pytest.approx(float(torch.tensor(0.1, dtype=torch.float16)) ** 2, rel=1e-6)


@pytest.mark.parametrize(("beta", "expected"), [(100.0, 0.1269280110), (100.0 * (1 - 0.6) ** 2, 0.5458929372)])
def test_worked_numbers_of_flow_matching_with_a_constant_and_a_weighted_beta(beta: float, expected: float) -> None:
    noise = double([[1, -0.5]])
    winner, loser = noise - double([[0.2, -0.1]]), noise - double([[-0.3, 0.4]])  # the velocities
    predictions = PairPredictions(
        policy_winner=winner + double([[0.1, 0]]),
        policy_loser=loser + double([[0.2, -0.1]]),
        reference_winner=winner + double([[0.2, 0.1]]),
        reference_loser=loser + double([[0.1, 0]]),
        target_winner=winner,
        target_loser=loser,
    )
    assert predictions.errors().margin.item() == pytest.approx(0.04, abs=1e-12)
    assert dpo_loss(predictions.errors(), beta=beta).item() == pytest.approx(expected, abs=1e-9)
