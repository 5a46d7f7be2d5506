"""TailorPO and SPO: their numbers, which candidates are compared, what a run costs, guidance, and kill and resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import ALONE, TWO, train
from torch import Tensor
from worked import assert_exact, double
from workshop import Brightness, Workshop, state

from algorithms.npo_joint import NPOJoint
from algorithms.spo import SPO
from algorithms.tailorpo import TailorPO, TailorPOG
from bench import ODE, StepOutput
from bench.core.errors import UserError
from bench.experiments.contracts.small_models import PROCESSES
from bench.models.forward_process import Transition
from bench.records.runs import RunFolder
from bench.rollouts.candidates import Choice, Comparison, roll_out_candidates
from bench.rollouts.grid import evaluation_grid
from bench.rollouts.rules import Ddim
from bench.training.step_pairs import StepPairBatch

SMALL: dict[str, Any] = {"rewards": "clip", "sampling_steps": 4, "trained": 2}
TRAINING: dict[str, Any] = {"global_batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-3}
COSTS = ("policy_forwards", "policy_backwards", "reference_forwards", "samples", "reward_calls")


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("flow"), PROCESSES["flow"])


def costs(run: RunFolder) -> dict[str, Any]:
    return {name: run.ledger()[name] for name in COSTS}


class TestNumbers:
    """Means [.10, -.20] and [.12, -.25], winner [.20, -.10], loser [.00, -.35], standard deviation .5."""

    def ratios(self) -> tuple[Tensor, Tensor]:
        taken, reference = (Transition(double([mean]), double([0.5])) for mean in ([0.10, -0.20], [0.12, -0.25]))
        winner, loser = (
            taken.log_prob(double([each])) - reference.log_prob(double([each]))
            for each in ([0.20, -0.10], [0.00, -0.35])
        )
        return winner, loser

    def test_tailorpo(self) -> None:
        winner, loser = self.ratios()
        assert_exact(torch.cat([winner, loser]), [0.0089, -0.0081])
        assert_exact(2 * torch.cat([winner, loser]), [0.0178, -0.0162])
        assert_exact(TailorPO().objective(winner, loser, 2), [0.6922975418099018])
        assert_exact(TailorPO(log_prob="sum", clip=0).objective(winner, loser, 2), [0.6914486255592494])

    @pytest.mark.parametrize(
        ("clip", "log_prob", "outside"),
        [
            (0.0085, "mean", [1, 0]),
            (0.008, "mean", [1, 1]),
            (0.017, "sum", [1, 0]),
            (0.017, "mean", [0, 0]),
            (0, "sum", [0, 0]),
        ],
    )
    def test_which_ratios_are_clipped(self, clip: float, log_prob: str, outside: list[int]) -> None:
        """They are exp(.0089) - 1 = .00894 and 1 - exp(-.0081) = .00807 from 1; of sums .01796 and .01607."""
        algorithm = TailorPO.model_validate({"clip": clip, "log_prob": log_prob})
        assert_exact(algorithm.clipped(torch.cat(self.ratios()), 2), outside)

    def test_spo(self) -> None:
        winner, loser = self.ratios()
        assert_exact(SPO().objective(winner, loser, 2), [0.6117553388706228])
        assert_exact(SPO().objective(double([0.5]), double([-0.5]), 2), [0.12613087991254893])

    def test_spo_compares_what_the_reward_tells_apart(self) -> None:
        """Best minus worst of the scores (1.2, .3, -.4, .9) and (.1, .2, .0, .3): probabilities .664 and .149 apart."""
        gap = double([1.6, 0.3])
        assert SPO().compares(gap).tolist() == [True, False]
        for threshold, expected in ((0.664036770267, [True, False]), (0.664036770269, [False, False])):
            assert SPO(threshold=threshold).compares(gap).tolist() == expected
        for threshold, expected in ((0.148885033622, [True, True]), (0.148885033624, [True, False])):
            assert SPO(threshold=threshold).compares(gap).tolist() == expected

    def test_the_gradient_does_not_depend_on_where_the_reference_is(self) -> None:
        mean = double([[0.10, -0.20]]).requires_grad_()
        policy, winner, loser = Transition(mean, double([0.5])), double([[0.20, -0.10]]), double([[0.00, -0.35]])
        (gradient,) = torch.autograd.grad(policy.log_prob(winner) - policy.log_prob(loser), mean)
        assert_exact(gradient, [[0.2 / 0.25 / 2, 0.25 / 0.25 / 2]])

    @pytest.mark.parametrize(("remaining", "eta"), [(1.0, 0.1), (0.5, 0.15), (0.0, 0.2)])
    def test_guidance(self, remaining: float, eta: float) -> None:
        """r(x) = -(x - 2)^2 at x = 1: the gradient of (r + .5 - r(x))^2 is -2."""
        moved = TailorPOG().refine(double([[1.0]]), lambda x: -((x - 2) ** 2).flatten(), double([remaining]))
        assert_exact(moved, [[1 + 2 * eta]])

    def test_guidance_that_lowers_the_reward_is_not_taken(self) -> None:
        steep = TailorPOG().refine(double([[1.0], [1.9]]), lambda x: -20 * ((x - 2) ** 2).flatten(), double([0.0, 0.0]))
        assert steep[0] == 1.0  # the whole way would be to 1 + .2 * 40
        assert steep[1] == 1.9
        assert TailorPOG().refine(double([[1.0]]), lambda x: x.flatten(), double([0.0])).item() == pytest.approx(1.2)


def test_candidates_come_from_one_latent_and_sampling_goes_on_with_the_chosen_one(workshop: Workshop) -> None:
    grid = evaluation_grid(workshop.model(), 4)
    start = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    seen = []

    def choose(number: int, candidates: Any, level: Tensor) -> Choice:
        seen.append((number, level.tolist()))
        return Choice(candidates[1], candidates[0], candidates[1], {})

    def noise(number: int, each: int) -> Tensor:
        return torch.full_like(start, 10.0 * number + each)

    found = roll_out_candidates(lambda x, _: 0.1 * x, grid, [Ddim(1.0)] * 4, start, noise, [0, 2], 2, choose)
    assert seen == [(0, [3, 3]), (2, [1, 1])]  # the last step is not sampled: nothing would be learnt from it
    assert torch.equal(found[0].latents, start)
    for number, comparison in zip((0, 2), found, strict=True):
        transition = comparison.transition(lambda x, _: 0.1 * x, grid)
        for each, drawn in enumerate((comparison.choice.loser, comparison.choice.winner)):
            torch.testing.assert_close(drawn, transition.sample(noise(number, each)))
    between = Comparison(found[0].choice.winner, torch.tensor([3, 3]), Ddim(1.0), found[0].choice)
    torch.testing.assert_close(
        found[1].latents, between.transition(lambda x, _: 0.1 * x, grid).sample(noise(1, 0)), rtol=1e-6, atol=1e-6
    )


def test_a_step_without_noise_has_no_candidates(workshop: Workshop) -> None:
    grid, start = evaluation_grid(workshop.model(), 4), torch.zeros(1, 1, 2, 2)
    with pytest.raises(UserError, match=r"sampling step 1 \(0 to 3\) has no noise, so that nothing can be learnt"):
        roll_out_candidates(lambda x, _: x, grid, [ODE] * 4, start, lambda *_: start, [1], 2, lambda *_: None)  # type: ignore[arg-type,return-value]


class Watched(TailorPO):
    """TailorPO that logs whether its winner has the higher reward, where the picture that the policy sees is brighter."""

    def step(self, batch: StepPairBatch, policy: Any) -> StepOutput:
        output = super().step(batch, policy)
        level = batch.comparison.level - 1
        with torch.no_grad():
            pixels = []
            for each in (batch.winner, batch.loser):
                prediction = batch.guide(policy.predict)(each, batch.grid.at(level))
                clean = batch.grid.process.to_x0(each, prediction, level)
                pixels.append(policy.model.decode_pixels(clean).flatten(1).mean(1))
        return StepOutput(output.losses, output.timesteps, {**output.logs, "brighter": pixels[0] - pixels[1]})


@pytest.mark.parametrize(("kind", "make", "scale"), [("epsilon", Watched, 1.0), ("flow", TailorPOG, 3.0)])
def test_a_run_starts_at_the_reference_and_costs_what_it_calls(
    workshop: Workshop, flow: Workshop, tmp_path: Path, kind: str, make: type[TailorPO], scale: float
) -> None:
    run = {"epsilon": workshop, "flow": flow}[kind].train(
        tmp_path, make(**SMALL, guidance_scale=scale), steps=2, **TRAINING
    )
    lines = run.steps()
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert lines[0]["margin"] == 0 != lines[1]["margin"]
    assert all(line["gap"] > 0 and 0 < line["reward"] < 255 for line in lines)
    branches, guided = (2 if scale > 1 else 1), make is TailorPOG
    assert sum(line["refined"] for line in lines) > 0 if guided else lines[0]["refined"] == 0
    if make is Watched:
        assert all(line["brighter"] == pytest.approx(line["gap"] / 255, rel=0.1) for line in lines)
    # Of four sampling steps the third is the last that is trained; two are trained, whose two candidates are looked at.
    looked = 3 + 2 * 2 + (2 * 2 if guided else 0) + (2 * 2 if make is Watched else 0)
    assert costs(run) == {
        "policy_forwards": 2 * 8 * branches * (looked + 2),
        "policy_backwards": 2 * 8 * branches * (2 + (2 if guided else 0)),
        "reference_forwards": 2 * 8 * branches * 2,
        "samples": 16,
        "reward_calls": 2 * 8 * make(**SMALL).judged + (4 if guided else 2),
    }


def test_a_run_that_is_stopped_equals_a_straight_one(workshop: Workshop, tmp_path: Path) -> None:
    algorithm = SPO(**SPO_SMALL)
    straight = workshop.train(tmp_path / "straight", algorithm, steps=2, **TRAINING)
    workshop.train(tmp_path / "stopped", algorithm, steps=1, **TRAINING)
    (tmp_path / "stopped/micro/algorithm/name/seed-0/DONE").unlink()
    resumed = workshop.train(tmp_path / "stopped", algorithm, steps=2, **TRAINING)
    left, right = state(straight), state(resumed)
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    assert costs(straight) == costs(resumed)


def test_the_update_does_not_depend_on_the_cut_and_differs_from_the_placebo(workshop: Workshop, tmp_path: Path) -> None:
    one, cut, placebo = (
        workshop.train(
            tmp_path / name, TailorPO(**{**SMALL, "trained": 1}), steps=1, **{**TRAINING, **changes}
        ).steps()[0]
        for name, changes in (("one", {}), ("cut", {"micro_batch_size": 3}), ("placebo", {"labels": "shuffled"}))
    )
    for name in ("reward", "gradient_norm"):
        assert cut[name] == pytest.approx(one[name], rel=1e-2)
    assert placebo["reward"] == one["reward"]
    assert placebo["gradient_norm"] != one["gradient_norm"]


class Constant(Brightness):
    """A reward that likes every picture."""

    def score(self, images: Any, prompts: Any) -> Tensor:
        return torch.ones(len(images))


def test_a_reward_that_tells_no_candidates_apart_stops_the_run(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Brightness, "score", Constant.score)
    with pytest.raises(UserError, match=r"the reward \(clip\) is the same for all candidates of the first step"):
        workshop.train(tmp_path, TailorPO(**SMALL), steps=1, **TRAINING)


def test_a_reward_that_is_hit_or_miss_may_tell_no_candidates_apart(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Brightness, "score", Constant.score)
    monkeypatch.setattr(Brightness, "continuous", False)
    run = workshop.train(tmp_path, TailorPO(**SMALL), steps=1, **TRAINING)
    assert run.steps()[0]["gap"] == 0


def test_a_batch_of_ties_after_the_first_step_does_not_stop_a_run(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.train(tmp_path, TailorPO(**SMALL), steps=1, **TRAINING)
    (tmp_path / "micro/algorithm/name/seed-0/DONE").unlink()
    monkeypatch.setattr(Brightness, "score", Constant.score)
    assert workshop.train(tmp_path, TailorPO(**SMALL), steps=2, **TRAINING).steps()[1]["gap"] == 0


def test_guidance_by_a_reward_without_gradient_is_refused(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Brightness, "score_pixels", lambda _, pixels, __: 0 * pixels.flatten(1).mean(1))
    with pytest.raises(UserError, match="the gradient of reward 'clip' has length 0"):
        workshop.train(tmp_path, TailorPOG(**SMALL), steps=1, **TRAINING)


SPO_SMALL: dict[str, Any] = {"rewards": "clip", "sampling_steps": 4, "first": 1, "trained": 2, "candidates": 3}


@pytest.mark.parametrize("kind", ["epsilon", "flow"])
def test_spo_starts_at_the_reference_and_costs_what_it_calls(
    workshop: Workshop, flow: Workshop, tmp_path: Path, kind: str
) -> None:
    run = {"epsilon": workshop, "flow": flow}[kind].train(tmp_path, SPO(**SPO_SMALL, threshold=0), steps=2, **TRAINING)
    lines = run.steps()
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert lines[0]["margin"] == 0 != lines[1]["margin"]
    assert all(line["compared"] == 1 for line in lines)
    # Steps 1 and 2 of 0 to 3 are trained; their three candidates are looked at.
    assert costs(run) == {
        "policy_forwards": 2 * 8 * (3 + 2 * 3 + 2),
        "policy_backwards": 2 * 8 * 2,
        "reference_forwards": 2 * 8 * 2,
        "samples": 16,
        "reward_calls": 2 * 8 * 2 * 3 + 2,
    }


@pytest.mark.parametrize("kind", ["epsilon", "flow"])
def test_npo_joint_starts_at_the_reference_and_trains_one_slot(
    workshop: Workshop, flow: Workshop, tmp_path: Path, kind: str
) -> None:
    algorithm = NPOJoint(**SPO_SMALL, guidance_scale=2, threshold=0)
    run = {"epsilon": workshop, "flow": flow}[kind].train(tmp_path, algorithm, steps=2, **TRAINING)
    lines = run.steps()
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert lines[0]["margin"] == 0 != lines[1]["margin"]
    # In sampling as in training, each step calls the policy for one slot and the reference for the other.
    each = 2 * 8 * (3 + 2 * 3 + 2)
    assert costs(run) == {
        "policy_forwards": each,
        "policy_backwards": 2 * 8 * 2,
        "reference_forwards": each + 2 * 8 * 2 * 2,
        "samples": 16,
        "reward_calls": 2 * 8 * 2 * 3 + 2,
    }


def test_npo_joint_needs_guidance() -> None:
    with pytest.raises(ValueError, match="greater than 1"):
        NPOJoint(guidance_scale=1)


class WithoutUnsure(SPO):
    """SPO that is told which pairs to leave out, for any unit of the reward."""

    apart: float

    def compares(self, gap: Tensor) -> Tensor:
        return gap > self.apart


def test_pairs_below_the_threshold_have_no_gradient(workshop: Workshop, tmp_path: Path) -> None:
    everything = workshop.train(tmp_path / "all", SPO(**SPO_SMALL, threshold=0), steps=1, **TRAINING).steps()[0]
    some = workshop.train(
        tmp_path / "some", WithoutUnsure(**SPO_SMALL, apart=everything["gap"]), steps=1, **TRAINING
    ).steps()[0]
    assert 0 < some["compared"] < 1
    assert 0 < some["gradient_norm"] != everything["gradient_norm"]
    assert some["loss"] == pytest.approx(math.log(2), abs=1e-7)
    with pytest.raises(
        UserError, match=r"the rewards \(clip\) of the first step's candidates are too close to compare any"
    ):
        workshop.train(tmp_path / "none", WithoutUnsure(**SPO_SMALL, apart=1e9), steps=1, **TRAINING)


def test_which_steps_spo_trains() -> None:
    assert SPO().kept == [4, 7, 10, 13, 16]
    assert SPO(trained=16).kept == list(range(4, 20))
    assert SPO(**SPO.recipes["sd15"].algorithm).kept == list(range(4, 20))
    for fields, eligible in (({"trained": 17}, 16), ({"sampling_steps": 4}, 0)):
        with pytest.raises(ValueError, match=f"is more than the {eligible} sampling steps that may be trained"):
            SPO(**fields)


def test_which_steps_are_trained() -> None:
    assert TailorPO().kept == [0, 4, 8, 12, 16]  # of 20, numbered from the noisiest on
    assert TailorPO(sampling_steps=3, trained=3).kept == [0, 1, 2]


def test_a_rule_without_densities_is_refused() -> None:
    with pytest.raises(ValueError, match="need densities, which rule=cps does not have"):
        SPO(rule="cps")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("tailorpo", SMALL),
        ("spo", {**SPO_SMALL, "threshold": 0.2}),
        ("npo-joint", {**SPO_SMALL, "threshold": 0, "guidance_scale": 2}),
    ],
)
def test_two_processes_equal_one(workshop: Workshop, tmp_path: Path, name: str, fields: dict[str, Any]) -> None:
    settings = {"algorithm": name, "fields": fields, "steps": 2, "global_batch_size": 5, "micro_batch_size": 2,
                "learning_rate": 1e-4, "gradients_by_step": True}  # fmt: skip
    one, two = (train(how, workshop, tmp_path / str(len(how)), **settings) for how in (ALONE, TWO))
    for each in ("reward", "gap", "compared", "gradient_norm", "gradient_norm_by_step"):
        assert two.steps()[0][each] == pytest.approx(one.steps()[0][each], rel=1e-2)
    assert name != "spo" or 0 < one.steps()[0]["compared"] < 1
    assert costs(one) == costs(two)
