"""Worked numbers and invariants of the objectives that couple pairs or wrap another objective."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from worked import F1, assert_exact, double
from workshop import Workshop

from algorithms.capo import CaPO
from algorithms.dpo import DPO
from algorithms.dro import DRO, dro_objective, dro_weights
from algorithms.kto import KTO, UTILITIES, Utility, kto_losses
from algorithms.npo import NPO
from algorithms.rpo import RPO, contrast_weights, contrasts, joint_embedding
from algorithms.sdpo import SDPO, safe_scale
from algorithms.self_npo import SelfNPO
from algorithms.seppo import SePPO
from algorithms.snpo import SNPO
from bench import Algorithm, Noised, PairBatch, PairPredictions, Policy, UserError


class TestNPO:
    def test_its_loss_is_dpos_at_the_opposite_margin(self, workshop: Workshop) -> None:
        policy, beta = workshop.policy(), 1e4
        nudge(policy.parameters())
        batch = workshop.batch([1, 2, 3])
        margin = DPO().step(batch, policy).logs["margin"]
        losses = NPO(objective_fields={"beta": beta}).step(batch, policy).losses
        assert (0.5 * beta * margin).abs().min() > 0.01
        torch.testing.assert_close(losses, (0.5 * beta * margin).exp().log1p(), rtol=1e-3, atol=0)

    def test_training_moves_the_winners_error_up_against_the_losers(self, workshop: Workshop) -> None:
        policy, batch = workshop.policy(), workshop.batch(range(6))
        NPO().step(batch, policy).losses.mean().backward()
        with torch.no_grad():
            for _, parameter in policy.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=1e-6)
        assert DPO().step(batch, policy).logs["margin"].mean() < 0

    def test_it_is_the_objective_on_the_flipped_batch(self, workshop: Workshop) -> None:
        policy = workshop.policy()
        nudge(policy.parameters())
        batch = workshop.batch([1, 2, 3])
        npo, dpo = NPO().step(batch, policy), DPO().step(batch.flipped(), policy)
        torch.testing.assert_close(npo.losses, dpo.losses, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(npo.logs["margin"], -DPO().step(batch, policy).logs["margin"], rtol=1e-3, atol=1e-8)

    def test_an_objective_without_losers_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="'self-npo' has no winner and loser to swap"):
            NPO(objective="self-npo")

    def test_an_objective_that_trains_the_empty_caption_the_other_way_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="'snpo' swaps pairs with an empty caption itself"):
            NPO(objective="snpo")
        assert NPO(objective="snpo", objective_fields={"empty_share": 0}).inner == SNPO(empty_share=0)

    def test_an_objective_whose_judge_would_not_be_fitted_is_refused(self) -> None:
        with pytest.raises(
            ValidationError, match="'apo' needs a scorer that can be fitted, which it does not get here"
        ):
            NPO(objective="apo")

    def test_a_reference_is_kept_if_the_objective_calls_it(self) -> None:
        assert NPO(objective="kto").calls_reference
        assert not NPO(objective="simpo").calls_reference

    def test_an_unknown_objective_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(UserError, match="unknown algorithm 'dop'.*'dpo'"):
            NPO(objective="dop")

    def test_a_field_of_the_objective_is_checked(self) -> None:
        with pytest.raises(UserError, match="dpo: beta=-1 is not allowed"):
            NPO(objective_fields={"beta": -1})


class TestSDPO:
    PREDICTIONS = PairPredictions(
        policy_winner=double([[0.9, 0.1], [0.2, 0.8]]),
        policy_loser=double([[0.5, 0.3], [0.4, 0.4]]),
        reference_winner=double([[0.8, 0.1], [0.1, 0.9]]),
        reference_loser=double([[0.6, 0.3], [0.3, 0.5]]),
        target_winner=double([[1, 0], [0, 1]]),
        target_loser=double([[1, 0], [0, 1]]),
    )

    def test_worked_number_for_one_scale_over_two_pairs(self) -> None:
        together = PairPredictions(*(part.reshape(1, 4) for part in self.PREDICTIONS))
        # the specification's inner product is 0.07, its numerator 0.025 before 1 - mu; 1e-9 guards the division
        assert_exact(safe_scale(together, mu=0.5), [0.0125 / (0.07 + 1e-9)])
        assert safe_scale(together, mu=0.5).item() == pytest.approx(0.1785714260, abs=1e-9)

    @pytest.mark.parametrize("wrapper", [SDPO, DRO])
    def test_an_objective_that_predicts_in_its_own_way_does_so_inside(
        self, workshop: Workshop, wrapper: type[SDPO | DRO]
    ) -> None:
        class Equal(DPO):
            def predict(self, noised: Noised, batch: PairBatch, policy: Policy) -> PairPredictions:
                known = super().predict(noised, batch, policy)
                return known._replace(reference_winner=known.policy_winner, reference_loser=known.policy_loser)

        policy, batch = workshop.policy(), workshop.batch([1, 2, 3])
        nudge(policy.parameters())
        algorithm = wrapper()
        algorithm.__dict__["inner"] = Equal()
        if isinstance(algorithm, DRO):
            batch = dataclasses.replace(batch, columns={"density_ratio": torch.ones(3)})
            batch = dataclasses.replace(batch, global_batch_stats=algorithm.global_batch_stats(batch, policy))
        assert algorithm.step(batch, policy).logs["margin"].abs().max() == 0

    def test_every_pair_has_its_own_scale(self) -> None:
        scales = safe_scale(self.PREDICTIONS, mu=0.5)
        alone = [
            safe_scale(PairPredictions(*(part[row : row + 1] for part in self.PREDICTIONS)), mu=0.5) for row in (0, 1)
        ]
        assert torch.equal(scales, torch.cat(alone))

    def test_opposed_gradients_are_left_alone(self) -> None:
        opposed = self.PREDICTIONS._replace(policy_loser=2 * double([[1, 0], [0, 1]]) - self.PREDICTIONS.policy_loser)
        assert safe_scale(opposed, mu=0.9).tolist() == [1, 1]

    def test_the_value_is_the_objective_and_only_the_losers_gradient_is_scaled(self) -> None:
        def gradients(algorithm: Algorithm) -> tuple[Tensor, Tensor, Tensor]:
            winner = self.PREDICTIONS.policy_winner.clone().requires_grad_()
            loser = self.PREDICTIONS.policy_loser.clone().requires_grad_()
            predictions = self.PREDICTIONS._replace(policy_winner=winner, policy_loser=loser)
            assert isinstance(algorithm, DPO | SDPO)
            losses = algorithm.prediction_loss(predictions, double([1, 1]))
            return losses.detach(), *torch.autograd.grad(losses.sum(), [winner, loser])

        plain, guarded = gradients(DPO(beta=10)), gradients(SDPO(objective_fields={"beta": 10}, mu=0.5))
        scale = safe_scale(self.PREDICTIONS, mu=0.5)[:, None]
        assert torch.equal(plain[0], guarded[0])
        assert torch.equal(plain[1], guarded[1])
        torch.testing.assert_close(guarded[2], scale * plain[2], rtol=0, atol=1e-9)

    def test_the_winner_does_not_get_worse_to_first_order(self) -> None:
        """With one shared output, a step along minus both gradients keeps ``mu`` of the winner's improvement."""
        winner = (self.PREDICTIONS.policy_winner - self.PREDICTIONS.target_winner)[0]
        loser = (self.PREDICTIONS.policy_loser - self.PREDICTIONS.target_loser)[0]
        scale = safe_scale(self.PREDICTIONS, mu=0.3)[0]
        assert (winner @ (winner - scale * loser)).item() >= 0.3 * (winner @ winner).item() - 1e-9


class TestDRO:
    LOSSES, RATIOS = double([0.5981388694, 0.7709570478]), double([1.5, 0.5])

    def test_worked_numbers(self) -> None:
        assert_exact(dro_objective(self.LOSSES, self.RATIOS, temperature=1), 0.6737257899)
        assert_exact(dro_objective(self.LOSSES, torch.ones(2, dtype=torch.float64), temperature=1), 0.6882765874)
        assert_exact((self.RATIOS * self.LOSSES).mean(), 0.6413434140)
        assert_exact(dro_weights(self.LOSSES, self.RATIOS, temperature=1), [0.9378178315, 0.1873940562])

    def test_the_weights_are_the_gradient(self) -> None:
        losses = self.LOSSES.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(dro_objective(losses, self.RATIOS, temperature=0.3), losses)
        torch.testing.assert_close(gradient, dro_weights(self.LOSSES, self.RATIOS, temperature=0.3), rtol=0, atol=1e-9)

    def test_a_large_temperature_is_the_mean_and_a_small_one_the_worst(self) -> None:
        ones = torch.ones(2, dtype=torch.float64)
        assert dro_objective(self.LOSSES, ones, temperature=1e7).item() == pytest.approx(
            self.LOSSES.mean().item(), abs=1e-6
        )
        assert dro_objective(self.LOSSES, ones, temperature=1e-4).item() == pytest.approx(
            self.LOSSES.max().item(), abs=1e-3
        )

    def test_every_loss_shows_the_objective_of_the_global_batch(self, workshop: Workshop) -> None:
        policy = workshop.policy()
        nudge(policy.parameters())
        data = DRO().prepare(workshop.data, workshop.context())
        losses = workshop.step(DPO(), range(6), policy, data).losses
        robust = workshop.step(DRO(temperature=0.1), range(6), policy, data).losses
        expected = dro_objective(losses, torch.ones(6), temperature=0.1)
        torch.testing.assert_close(robust, expected.expand(6), rtol=1e-5, atol=1e-6)

    def test_an_objective_that_is_more_than_a_loss_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="'dro' is not a plain pairwise objective"):
            SDPO(objective="dro")

    def test_an_objective_without_a_reference_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="'kto' is not a plain pairwise objective"):
            DRO(objective="kto")


class TestRPO:
    DISTANCES = double([[0, 0.4], [0.4, 0]])

    def test_worked_numbers(self) -> None:
        winner, loser = F1[0] - F1[2], F1[1] - F1[3]
        weights = contrast_weights(self.DISTANCES, temperature=0.5)
        assert_exact(weights[0], [0.6899744811, 0.3100255189])
        outside = contrasts(winner, loser, weights, beta=10, placement="outside", count=2)
        inside = contrasts(winner, loser, weights, beta=10, placement="inside", count=2)
        assert_exact(outside.sum(1).mean(), 0.6833870543)
        assert_exact(inside.sum(1).mean(), 0.6878338827)

    @pytest.mark.parametrize("placement", ["outside", "inside"])
    def test_the_start_is_log_two(self, placement: str) -> None:
        zero = torch.zeros(3, dtype=torch.float64)
        weights = contrast_weights(torch.rand(3, 3, dtype=torch.float64), temperature=0.5)
        terms = contrasts(zero, zero, weights, beta=1000, placement=placement, count=3)
        assert_exact(terms.sum(1), [math.log(2)] * 3)


class TestKTO:
    # the released code has no factor 1/2: its beta of 20 is 40 here
    @pytest.mark.parametrize(("sign", "expected"), [(1, 0.13156919052551955), (-1, 0.8951930609330263)])
    def test_worked_numbers(self, sign: int, expected: float) -> None:
        gains = sign * double([0.065, 0.065, -0.12, -0.21])
        point = gains.mean().clamp(min=0)
        losses = kto_losses(gains, double([1, 1, -1, -1]), point, beta=40, utility="sigmoid")
        assert_exact(losses.mean(), expected)

    @pytest.mark.parametrize(
        ("utility", "desirable", "undesirable"),
        # 1 - h of the released script at a scaled gain of 0.7; log1p(e^x) is -log sigmoid(-x)
        [
            ("sigmoid", 1 / (1 + math.exp(0.7)), 1 / (1 + math.exp(-0.7))),
            ("loss_averse", 1 + math.log1p(math.exp(-0.7)), 1 + math.log1p(math.exp(0.7))),
            ("risk_seeking_1", 1 - math.log1p(math.exp(0.7)), 1 + math.log1p(math.exp(0.7))),
            ("risk_seeking_2", 2 - math.exp(0.007), 2 + math.exp(0.007)),
            ("risk_seeking_3", 1 - math.log1p(math.exp(0.7)), 1 - math.log1p(math.exp(-0.7))),
        ],
    )
    def test_the_five_utilities_of_released_code(self, utility: Utility, desirable: float, undesirable: float) -> None:
        losses = kto_losses(double([0.7, 0.7]), double([1, -1]), double(0), beta=2, utility=utility)
        assert_exact(losses, [desirable, undesirable])

    @pytest.mark.parametrize("utility", UTILITIES)
    def test_a_desirable_image_is_pulled_up_and_an_undesirable_one_down(self, utility: Utility) -> None:
        gains = double([0.01, 0.01]).requires_grad_()
        losses = kto_losses(gains, double([1, -1]), double(0.002), beta=20, utility=utility)
        (gradient,) = torch.autograd.grad(losses.sum(), gains)
        assert gradient[0] < 0 < gradient[1]

    def test_the_reference_point_is_that_of_the_global_batch(self, workshop: Workshop) -> None:
        policy = workshop.policy()
        nudge(policy.parameters())
        whole = workshop.step(KTO(), range(8), policy, workshop.data)
        part = workshop.step(KTO(), range(8), policy, workshop.data, places=[0, 1])
        assert part.logs["reference_point"][0] == whole.logs["reference_point"][0]


class TestCoupledTraining:
    def test_a_batch_without_the_statistics_of_the_global_batch_is_refused(self, workshop: Workshop) -> None:
        for algorithm in (KTO(), RPO()):
            with pytest.raises(ValueError, match="the batch has no global_batch_stats"):
                algorithm.step(workshop.batch([1, 2, 3]), workshop.policy())

    @pytest.mark.parametrize(
        "algorithm", [KTO(), DRO(temperature=0.1), RPO(), RPO(placement="inside")], ids=lambda a: a.info.title
    )
    def test_the_gradient_of_two_micro_batches_is_that_of_one(self, workshop: Workshop, algorithm: Algorithm) -> None:
        data = algorithm.prepare(workshop.data, workshop.context())

        def gradient(*cuts: Sequence[int]) -> Tensor:
            policy = workshop.policy()
            nudge(policy.parameters())
            for places in cuts:
                workshop.step(algorithm, range(6), policy, data, places=places).losses.sum().backward()
            return torch.cat(
                [parameter.grad.flatten() for _, parameter in policy.parameters() if parameter.grad is not None]
            )

        whole, parts = gradient(range(6)), gradient([0, 1], [2, 3, 4, 5])
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4 * whole.abs().max().item())

    def test_rpo_has_the_gradient_of_the_whole_matrix(self, workshop: Workshop) -> None:
        """Losers are pushed by every winner of the batch, not only by their own."""
        algorithm = RPO(temperature=0.5)
        data = algorithm.prepare(workshop.data, workshop.context())
        policy = workshop.policy()
        nudge(policy.parameters())
        batch = workshop.batch(range(4), data=data)
        errors = algorithm.predict(algorithm.noised(batch, policy), batch, policy).errors()
        embeddings = joint_embedding(batch)
        weights = contrast_weights(1 - embeddings @ embeddings.T, temperature=0.5)
        gaps = (errors.policy_winner - errors.reference_winner, errors.policy_loser - errors.reference_loser)
        loss = contrasts(*gaps, weights, beta=algorithm.beta, placement="outside", count=4).sum(1).mean()
        tensors = [parameter for _, parameter in policy.parameters()]
        expected = torch.autograd.grad(loss, tensors)
        actual = torch.autograd.grad(workshop.step(algorithm, range(4), policy, data).losses.mean(), tensors)
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * max(1.0, other.abs().max().item()))

    @pytest.mark.parametrize(
        "algorithm", [SelfNPO(decay=0.5), SePPO(interval=1, sampling_steps=2, pool=2)], ids=lambda a: a.info.title
    )
    def test_remembered_weights_survive_a_restart(
        self, workshop: Workshop, algorithm: Algorithm, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        def weights(folder: str, *legs: int) -> dict[str, Tensor]:
            path = tmp_path_factory.mktemp(folder)
            for steps in legs:
                run = workshop.train(
                    path, algorithm, steps=steps, global_batch_size=4, learning_rate=1e-3, checkpoint_seconds=0
                )
                (run.folder / "DONE").unlink()
            return dict(workshop.model().load_trained(run.weights).named_parameters())

        straight, resumed = weights("straight", 4), weights("resumed", 2, 4)
        assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_field_that_is_a_list_of_metrics_is_typed_with_commas() -> None:
    assert CaPO.model_validate({"rewards": "pickscore,hpsv2"}).rewards == ("pickscore", "hpsv2")
    assert dataclasses.is_dataclass(CaPO.info)


def nudge(parameters: list[tuple[str, torch.nn.Parameter]]) -> None:
    """Move the policy a little away from the reference."""
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=1e-4)
