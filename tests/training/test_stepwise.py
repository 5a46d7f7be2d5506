"""DPOK and D3PO: their numbers, what a run starts from and costs, and samples of a prompt that stay together."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import ALONE, TWO, train
from pydantic import PrivateAttr
from worked import assert_exact, double
from workshop import Workshop, state

from algorithms.d3po import D3PO, clipped_log_ratio, preference_losses
from algorithms.dpok import DPOK
from bench import Policy, RolloutBatch, StepOutput
from bench.core.errors import UserError
from bench.experiments.contracts.small_models import PROCESSES
from bench.training.judgement import judge
from bench.training.online import StepwiseAlgorithm

SMALL: dict[str, Any] = {"rewards": "clip", "sampling_steps": 4, "trained": 2, "within": 3}
TRAINING: dict[str, Any] = {"global_batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-3}
COSTS = ("policy_forwards", "policy_backwards", "reference_forwards", "samples", "reward_calls")


def dpok(**changes: Any) -> DPOK:
    return DPOK(**{**SMALL, "group": 4, "clip": 1e-3, **changes})


def d3po(**changes: Any) -> D3PO:
    return D3PO(**{**SMALL, **changes})


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("flow"), PROCESSES["flow"])


class TestNumbers:
    def test_dpok(self) -> None:
        assert_exact(DPOK().objective(double([0.8, -0.4]), double([2e-4, -3e-4])).mean(), -20.006)

    def test_dpok_has_no_gradient_outside_its_band(self) -> None:
        log_ratio = double([2e-4, -3e-4, 2e-4, 5e-5]).requires_grad_()
        losses = DPOK().objective(double([0.8, 0.8, -0.8, 0.8]), log_ratio)
        (gradient,) = torch.autograd.grad(losses.sum(), log_ratio)
        assert (gradient != 0).tolist() == [False, False, False, True]  # PPO's minimum keeps the second and the third

    def test_d3po(self) -> None:
        log_ratio = double([-1.00, -1.20]) - double([-1.05, -1.02])
        clipped = clipped_log_ratio(log_ratio, 0.1)
        assert_exact(clipped.exp(), [math.exp(0.05), 0.9])
        losses = preference_losses(clipped[None], double([[1.0, 0.0]]), beta=0.1)
        torch.testing.assert_close(losses, double([[0.6854093256] * 2]), rtol=0, atol=6e-11)
        unclipped = preference_losses(log_ratio[None], double([[1.0, 0.0]]), beta=0.1)
        torch.testing.assert_close(unclipped, double([[0.6817133041] * 2]), rtol=0, atol=6e-11)

    def test_a_ratio_far_outside_the_clip_has_no_gradient(self) -> None:
        log_ratio = torch.tensor([100.0, -200.0, 0.05], requires_grad=True)  # exp(100) is infinite in float32
        clipped = clipped_log_ratio(log_ratio, 0.1)
        clipped.sum().backward()
        torch.testing.assert_close(clipped.detach().exp(), torch.tensor([1.1, 0.9, math.exp(0.05)]))
        assert log_ratio.grad is not None
        assert log_ratio.grad.tolist() == [0.0, 0.0, 1.0]

    def test_every_two_samples_of_a_prompt_are_compared(self) -> None:
        log_ratio, better = double([[0.1, -0.2, 0.3]]), double([[2.0, 1.0, 1.0]])

        def loss(gap: float) -> float:
            return math.log1p(math.exp(-0.5 * gap))

        won, drawn = (loss(0.1 + 0.2), loss(0.1 - 0.3)), math.log(2)
        expected = [sum(won) / 2, (won[0] + drawn) / 2, (won[1] + drawn) / 2]
        assert_exact(preference_losses(log_ratio, better, beta=0.5), [expected])

    def test_the_better_sample_is_made_more_probable(self) -> None:
        log_ratio = double([[0.0, 0.0]]).requires_grad_()
        (gradient,) = torch.autograd.grad(
            preference_losses(log_ratio, double([[0.0, 3.0]]), beta=0.1).mean(), log_ratio
        )
        assert_exact(gradient, [[0.05, -0.05]])  # beta / 2 of the pair's loss


class TestOrder:
    def test_d3po_reads_the_order_of_the_rewards_alone(self) -> None:
        scores = {"one": double([0, 20, 40, 60]), "two": double([3, 2, 1, 0])}
        found = judge(d3po(rewards="one,two", group=4, reward_weights="1,2"), scores, {"one": 1, "two": -1}, None)
        assert found.advantages.tolist() == [-3, -2, -1, 0]  # by how many 1 r - 2 s is beaten
        assert found.record["groups_without_spread"] == 0

    def test_d3po_tells_apart_what_float32_would_not_beside_a_large_score_and_keeps_ties(self) -> None:
        scores = {"clip": double([0.1, 0.1 + 1e-9, 30, 2, 2, 2])}
        found = judge(d3po(group=3), scores, {"clip": 1}, None)
        assert found.advantages.tolist() == [-2, -1, 0, 0, 0, 0]
        assert found.record["groups_without_spread"] == 0.5

    @pytest.mark.parametrize(
        "fields", [{"advantage": "dance"}, {"advantage_clip": 1.0}, {"combination": "rewards"}], ids=str
    )
    def test_what_has_no_effect_on_it_is_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="has no effect: D3PO uses only the order of the weighted rewards"):
            d3po(**fields)

    def test_more_steps_than_there_are_to_choose_from(self) -> None:
        with pytest.raises(ValueError, match="trained=3 is more than the 2 sampling steps that may be trained"):
            dpok(trained=3, within=2)

    def test_a_rule_without_densities(self) -> None:
        with pytest.raises(ValueError, match="need densities, which rule=cps does not have"):
            d3po(rule="cps")


def test_a_distance_without_weight_calls_no_reference(workshop: Workshop, tmp_path: Path) -> None:
    run = workshop.train(tmp_path, dpok(kl=0), steps=1, **TRAINING)
    assert run.ledger()["reference_forwards"] == 0
    assert "distance" not in run.steps()[0]


@pytest.mark.parametrize(("kind", "algorithm", "scale"), [("epsilon", "dpok", 3.0), ("flow", "d3po", 1.0)])
def test_a_run_starts_at_ratio_one_and_costs_what_it_calls(
    workshop: Workshop, flow: Workshop, tmp_path: Path, kind: str, algorithm: str, scale: float
) -> None:
    made: StepwiseAlgorithm = {"dpok": dpok, "d3po": d3po}[algorithm](guidance_scale=scale)  # type: ignore[operator]
    run = {"epsilon": workshop, "flow": flow}[kind].train(tmp_path, made, steps=2, **TRAINING)
    lines = run.steps()
    assert [line["ratio_error"] for line in lines] == [0, 0]
    if algorithm == "d3po":
        assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    else:
        assert lines[0]["distance"] == 0
        assert lines[1]["distance"] > 0
    branches = 2 if scale > 1 else 1
    trained = branches * 8 * 2
    assert {name: run.ledger()[name] for name in COSTS} == {
        "policy_forwards": 2 * (branches * 8 * 4 + trained),
        "policy_backwards": 2 * trained,
        "reference_forwards": 2 * trained,
        "samples": 16,
        "reward_calls": 16 + 2,  # the first picture is scored twice more, to see whether the reward repeats itself
    }


class Watched(D3PO):
    """D3PO that keeps where its samples started and of which prompts they are."""

    _seen: list[tuple[tuple[int, ...], Any]] = PrivateAttr(default_factory=list)

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:
        if batch.trajectories.kept[batch.which] == 0:
            self._seen.append((batch.row_ids, batch.trajectories.latents[:, batch.which].clone()))
        return super().step(batch, policy)


@pytest.mark.parametrize("same", [True, False])
def test_samples_of_a_prompt_share_a_micro_batch_and_their_start(
    workshop: Workshop, tmp_path: Path, same: bool
) -> None:
    algorithm = Watched(**{**SMALL, "trained": 3}, same_start=same)
    workshop.train(tmp_path, algorithm, steps=2, **{**TRAINING, "micro_batch_size": 4})
    assert len(algorithm._seen) == 4
    starts = torch.cat([latents for _, latents in algorithm._seen])
    rows = [row for ids, _ in algorithm._seen for row in ids]
    assert rows[::2] == rows[1::2]
    assert len({*rows}) == 8
    assert torch.equal(starts[::2], starts[1::2]) == same
    assert len(starts.flatten(1).unique(dim=0)) == (8 if same else 16)


@pytest.mark.parametrize("make", [pytest.param(dpok, marks=pytest.mark.slow), d3po])
def test_a_run_that_is_stopped_within_a_collection_equals_a_straight_one(
    workshop: Workshop, tmp_path: Path, make: Any
) -> None:
    straight = workshop.train(tmp_path / "straight", make(updates=2), steps=3, **TRAINING)
    workshop.train(tmp_path / "stopped", make(updates=2), steps=1, **TRAINING)
    (tmp_path / "stopped/micro/algorithm/name/seed-0/DONE").unlink()
    resumed = workshop.train(tmp_path / "stopped", make(updates=2), steps=3, **TRAINING)
    left, right = state(straight), state(resumed)
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_the_update_does_not_depend_on_how_pairs_are_cut(workshop: Workshop, tmp_path: Path) -> None:
    one, cut = (
        workshop.train(tmp_path / str(size), d3po(), steps=2, **{**TRAINING, "micro_batch_size": size})
        for size in (8, 2)
    )
    for line, other in zip(one.steps(), cut.steps(), strict=True):
        assert other["gradient_norm"] == pytest.approx(line["gradient_norm"], rel=1e-2)
        assert other["loss"] == pytest.approx(line["loss"], rel=1e-4)


@pytest.mark.slow
def test_two_processes_share_whole_pairs(workshop: Workshop, tmp_path: Path) -> None:
    settings = {"algorithm": "d3po", "fields": SMALL, "steps": 2, "global_batch_size": 6, "micro_batch_size": 2,
                "learning_rate": 1e-4}  # fmt: skip
    one, two = (train(how, workshop, tmp_path / str(len(how)), **settings) for how in (ALONE, TWO))
    for lonely, joint in zip(one.steps(), two.steps(), strict=True):
        assert joint["loss"] == pytest.approx(lonely["loss"], rel=1e-4)
        assert joint["gradient_norm"] == pytest.approx(lonely["gradient_norm"], rel=1e-2)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"micro_batch_size": 3}, "D3PO compares the 2 samples of a prompt; make micro_batch_size a multiple of 2"),
        ({"global_batch_size": 7}, "whole groups of 2|make global_batch_size a multiple of 2"),
    ],
)
def test_groups_that_would_be_cut_are_refused(
    workshop: Workshop, tmp_path: Path, training: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        workshop.train(tmp_path, d3po(), steps=1, **{**TRAINING, **training})
