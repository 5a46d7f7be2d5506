"""The online loop on small models: ratio 1, exact cost, kill and resume, and the direction of the update."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import ALONE, TWO, train, weights
from PIL import Image
from pydantic import PrivateAttr
from torch import Tensor
from worked import assert_exact, double
from workshop import Brightness, Workshop, state

from algorithms.awm import AWM, WEIGHTINGS
from algorithms.ddpo import DDPO
from algorithms.flow_grpo import FlowGRPO
from algorithms.nft import NFT, normalised_error
from bench import Policy, RolloutBatch, StepOutput
from bench.core import termination
from bench.core.errors import UserError
from bench.core.termination import TerminatedError
from bench.experiments.contracts.small_models import PROCESSES
from bench.models.forward_process import Transition
from bench.records.runs import RunFolder
from bench.rollouts.advantages import CONVENTIONS, Combination, Convention
from bench.training.diagnostics import DivergedError, check_ratio
from bench.training.judgement import judge, placebo_order
from bench.training.online import OnlineAlgorithm
from bench.training.ratios import clipped_objective, kl_nats, ratio_logs, squared_mean_shift

SMALL: dict[str, Any] = {"rewards": "clip", "group": 4, "sampling_steps": 4, "trained": 2, "within": 3, "clip": 1e-3}
TRAINING: dict[str, Any] = {"global_batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-3}
COSTS = ("pairs", "policy_forwards", "policy_backwards", "reference_forwards", "samples", "reward_calls")


def ddpo(**changes: Any) -> DDPO:
    return DDPO(**{**SMALL, **changes})


def flow_grpo(**changes: Any) -> FlowGRPO:
    return FlowGRPO(**{**SMALL, **changes})


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("flow"), PROCESSES["flow"])


@pytest.fixture(scope="module")
def v(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("v"), PROCESSES["v_prediction"])


@pytest.fixture
def listening() -> Iterator[None]:
    """Signals are handled as in a command, until the test is over."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    termination.listen()
    yield
    for number, handler in before:
        signal.signal(number, handler)
    termination._STATE.received = None


def costs(run: RunFolder) -> dict[str, Any]:
    return {name: run.ledger()[name] for name in COSTS}


def same(one: RunFolder, other: RunFolder) -> bool:
    left, right = state(one), state(other)
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def logged(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of the log, without how long they took."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in run.steps()]


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return sum(((value - other[name]) ** 2).sum().item() for name, value in one.items()) ** 0.5


def repeated(*values: object) -> Any:
    """A case that differs little from one that is not slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


class TestNumbers:
    def test_the_clipped_objective_by_hand(self) -> None:
        losses = clipped_objective(double([1.2, -0.7]), double([2e-4, -3e-4]), 1e-4)
        assert_exact(losses.mean(), -0.2500950000)

    def test_with_one_update_the_gradient_is_that_of_the_score_function(self) -> None:
        log_prob, advantages = double([-1.0, -1.2]).requires_grad_(), double([1.2, -0.7])
        score = -advantages * log_prob
        assert_exact(score.detach().mean(), 0.18)
        losses = clipped_objective(advantages, log_prob - log_prob.detach(), 1e-4)
        one, other = (torch.autograd.grad(each.sum(), log_prob)[0] for each in (score, losses))
        assert_exact(one, other.tolist())

    def test_what_is_logged_about_ratios_by_hand(self) -> None:
        logs = ratio_logs(double([2e-4, -3e-4]), 2.5e-4, 100)
        assert_exact(torch.stack(list(logs.values())), [[2e-4, 3e-4], [0, 1], [-0.02, 0.03]])

    def test_the_distance_from_the_reference_by_hand(self) -> None:
        # v = [.5, .1], v_ref = [.4, .2], s .8 to .7, g 1.4: means differ by (1 + g^2 (1 - s) / (2 s)) ds (v - v_ref)
        shift = 1.245 * -0.1 * double([[0.1, -0.1]])
        assert_exact(squared_mean_shift(shift, double([1.4])), [3.9541454082e-05])
        assert_exact(2 * squared_mean_shift(shift, double([1.4 * 0.1**0.5])), [7.908290816e-04])
        step, reference = (Transition(mean, double([1.4 * 0.1**0.5])) for mean in (shift, 0 * shift))
        assert_exact(kl_nats(step, reference), [7.908290816e-04])


@pytest.mark.parametrize(
    ("kind", "scale"),
    [
        ("epsilon", 1.0),
        ("flow", 3.0),
        repeated("epsilon", 3.0),
        repeated("flow", 1.0),
        repeated("v", 1.0),
        repeated("v", 3.0),
    ],
)
def test_a_run_starts_at_ratio_one_and_costs_what_it_calls(
    workshop: Workshop, v: Workshop, flow: Workshop, tmp_path: Path, kind: str, scale: float
) -> None:
    where = {"epsilon": workshop, "v": v, "flow": flow}[kind]
    algorithm: OnlineAlgorithm = flow_grpo(guidance_scale=scale) if kind == "flow" else ddpo(guidance_scale=scale)
    run = where.train(tmp_path, algorithm, steps=2, **TRAINING)
    for line in run.steps():
        assert line["ratio_error"] == 0  # the same micro-batch and one function: the last bit
        assert line["groups_without_spread"] == 0
        assert line["reward_std"] > 0
    branches = 2 if scale > 1 else 1
    trained = branches * 8 * 2
    assert costs(run) == {
        "pairs": 16,
        "policy_forwards": 2 * (branches * 8 * 4 + trained),
        "policy_backwards": 2 * trained,
        "reference_forwards": 2 * trained if kind == "flow" else 0,
        "samples": 16,
        "reward_calls": 16 + 2,  # the first picture is scored twice more, to see whether the reward repeats itself
    }


def test_a_collection_that_is_trained_on_twice_has_ratio_one_the_first_time(workshop: Workshop, tmp_path: Path) -> None:
    run = workshop.train(tmp_path, ddpo(updates=2), steps=4, **TRAINING)
    assert [line["ratio_error"] == 0 for line in run.steps()] == [True, False, True, False]
    assert run.steps()[0]["reward"] == run.steps()[1]["reward"] != run.steps()[2]["reward"]


class TestRatio:
    """Before the first update from a collection the importance ratio is 1, within three noise floors for every sample."""

    @pytest.mark.parametrize(("mean", "largest"), [(0.0, 0.0), (1e-6, 3e-6)])
    def test_rounding_is_no_difference(self, mean: float, largest: float) -> None:
        check_ratio({"ratio_error": mean, "ratio_error_largest": largest}, 1e-6)

    @pytest.mark.parametrize(("mean", "largest"), [(2e-6, 2e-6), (1e-8, 4e-6)])
    def test_a_difference_of_a_few_samples_is_found(self, mean: float, largest: float) -> None:
        with pytest.raises(DivergedError, match=rf"is {mean:.3g} on average and {largest:.3g} at most"):
            check_ratio({"ratio_error": mean, "ratio_error_largest": largest}, 1e-6)

    def test_an_algorithm_that_does_not_log_it_is_not_trained(self) -> None:
        with pytest.raises(ValueError, match="must log the absolute log ratio as 'ratio_error'"):
            check_ratio({"loss": 0.0}, 1e-6)

    def test_the_largest_of_all_micro_batches_is_logged(self, workshop: Workshop, tmp_path: Path) -> None:
        run = workshop.train(tmp_path, ddpo(updates=2), steps=2, **{**TRAINING, "micro_batch_size": 2})
        first, second = run.steps()
        assert first["ratio_error_largest"] == 0
        assert second["ratio_error_largest"] > second["ratio_error"] > 0


def assert_close(advantages: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(advantages, torch.tensor(expected), rtol=1e-6, atol=1e-6)


def assert_close_to(found: Tensor, value: float) -> None:
    torch.testing.assert_close(found, double([value]), rtol=0, atol=6e-11)  # the figures have ten digits


class TestForwardNumbers:
    """x0 [.2, -.1] and noise [1, -.5] at t = .6 of a flow, so that x_t is [.68, -.34] and the true velocity [.8, -.4]."""

    def test_nft(self) -> None:
        xt, clean, old, new = (double([row]) for row in ([0.68, -0.34], [0.2, -0.1], [0.9, -0.4], [0.85, -0.5]))
        for beta, expected in ((1.0, (0.05, 0.078, 0.292)), (0.1, (0.0521428571, 0.0580434783, 2.6956521739))):
            ends = (old + sign * beta * (new - old) for sign in (1, -1))
            good, bad = (normalised_error(xt - 0.6 * end, clean) for end in ends)
            loss = NFT(beta=beta).objective(good, bad, double([2.0]))
            torch.testing.assert_close(torch.cat([good, bad, loss]), double(expected), rtol=0, atol=6e-11)

    def test_the_old_weights_of_nft_stay_longer_and_longer(self) -> None:
        assert [NFT().old_share(steps) for steps in (100, 400, 600)] == [0.1, 0.4, 0.5]
        assert [NFT(decay="late").old_share(steps) for steps in (50, 100, 300)] == [0, 0.1875, 0.999]

    def test_awm(self) -> None:
        expected = {"uniform": 0.00625, "t": 0.00375, "t2": 0.00225, "huber": 0.0474281653, "ghuber": 0.6672201265}
        for name, value in expected.items():
            assert_close_to(WEIGHTINGS[name](double([0.00625]), double([0.6])), value)  # type: ignore[index]
        assert_close_to(WEIGHTINGS["ghuber"](double([0.005]), double([0.6])), 0.6306060444)


@pytest.mark.parametrize(
    ("make", "kind"), [(NFT, "flow"), (AWM, "epsilon"), repeated(NFT, "epsilon"), repeated(AWM, "flow")]
)
def test_a_run_on_noised_samples_costs_what_it_calls(
    workshop: Workshop, flow: Workshop, tmp_path: Path, kind: str, make: type[OnlineAlgorithm]
) -> None:
    small: dict[str, Any] = {name: SMALL[name] for name in ("rewards", "group", "sampling_steps", "trained")}
    by_copy = make is NFT
    run = {"epsilon": workshop, "flow": flow}[kind].train(
        tmp_path, make(**small, updates=2 if by_copy else 1), steps=2, **TRAINING
    )
    sampled, trained = 2 * 8 * 4, 2 * 8 * 2
    assert costs(run) == {
        "pairs": 16,
        "policy_forwards": trained + (0 if by_copy else sampled),
        "policy_backwards": trained,
        "reference_forwards": 2 * trained + (sampled if by_copy else 0),
        "samples": 16,
        "reward_calls": 16 + 2,
    }
    assert "ratio_error" not in run.steps()[0]


def test_distances_without_weight_call_no_network(workshop: Workshop, tmp_path: Path) -> None:
    small: dict[str, Any] = {"rewards": "clip", "group": 4, "sampling_steps": 2, "trained": 1}
    awm = workshop.train(tmp_path / "awm", AWM(**small, kl=0, average=0), steps=1, **TRAINING)
    assert costs(awm)["reference_forwards"] == 0
    nft = workshop.train(tmp_path / "nft", NFT(**small, kl=0), steps=1, **TRAINING)
    assert costs(nft)["reference_forwards"] == 8 * 2 + 8  # by the old weights, which sample


def test_awm_takes_one_step_from_a_collection() -> None:
    with pytest.raises(ValueError, match="updates=2 would train on samples of earlier weights"):
        AWM(updates=2)


def test_the_published_advantage_of_nft_is_the_default_and_the_tiny_recipe_states_its_own() -> None:
    assert NFT().advantage == "flow-grpo"
    assert NFT(**NFT.recipes["tiny"].algorithm).advantage == "flow-grpo-group"


def test_a_run_that_old_weights_sample_resumes_within_a_collection(workshop: Workshop, tmp_path: Path) -> None:
    nft = NFT(rewards=("clip",), group=4, sampling_steps=3, trained=1, updates=2)
    straight = workshop.train(tmp_path / "straight", nft, steps=4, **TRAINING)
    stopped = workshop.train(tmp_path / "stopped", nft, steps=3, **TRAINING)
    assert {name.split("/")[1] for name in state(stopped) if name.startswith("memory/")} == {"old"}
    (tmp_path / "stopped/micro/algorithm/name/seed-0/DONE").unlink()
    resumed = workshop.train(tmp_path / "stopped", nft, steps=4, **TRAINING)
    assert same(straight, resumed)
    assert costs(straight) == costs(resumed)
    assert logged(straight) == logged(resumed)


def test_advantages_of_several_rewards_by_the_stated_combination() -> None:
    scores = {"one": double([1, 2, 3, 6]), "two": double([-0.2, -0.5, -0.1, -0.4])}
    signs = {"one": 1, "two": -1}  # lower is better
    several: dict[str, Any] = {"rewards": "one,two", "group": 4, "advantage": "dance"}
    by_advantage = judge(ddpo(**several), scores, signs, None)
    assert_close(by_advantage.advantages, [-1.4735426230, 0.6325350073, -1.0954450550, 1.9364526707])
    assert by_advantage.record == pytest.approx(
        {"reward": 3.3, "reward_std": 1.91703, "reward_one": 3, "reward_two": -0.3, "groups_without_spread": 0},
        rel=1e-3,
    )
    by_reward = judge(ddpo(**several, combination="rewards"), scores, signs, None)
    assert_close(by_reward.advantages, [-0.9486832938, -0.3614031595, -0.0903507899, 1.4004372432])
    halved = judge(ddpo(**several, reward_weights="1,0"), scores, signs, None)
    assert_close(halved.advantages, [-0.9258200955, -0.4629100477, 0, 1.3887301432])


def test_what_groups_without_spread_teach() -> None:
    scores = {"one": double([1, 1, 3, 3])}
    shares = {
        name: judge(ddpo(rewards="one", group=2, advantage=name), scores, {"one": 1}, None).record[
            "groups_without_spread"
        ]
        for name in ("gardo", "ddpo")
    }
    assert shares == {"gardo": 1, "ddpo": 0}  # the mean of all samples tells one prompt from the other


def test_a_weight_for_each_reward() -> None:
    with pytest.raises(ValueError, match="all reward_weights are 0"):
        ddpo(reward_weights="0")
    with pytest.raises(ValueError, match="1 reward_weights are not one for each of 2 rewards"):
        ddpo(rewards="one,two", reward_weights="0.5")


@pytest.mark.parametrize("combination", ["advantages", "gdpo"])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_placebo_says_nothing_about_which_sample_is_better(name: Convention, combination: Combination) -> None:
    """Prompts differ, so a placebo within prompts would keep much of an advantage over all samples."""
    algorithm = ddpo(rewards="one", group=8, advantage=name, combination=combination)
    random = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, generator=random, dtype=torch.float64)
    scores = (draw(512, 1) + 0.5 * draw(512, 8)).flatten()
    order = placebo_order(algorithm, scores.numel(), 3, 0)
    assert sorted(order.tolist()) == list(range(scores.numel()))
    given, shuffled = (judge(algorithm, {"one": scores}, {"one": 1}, each).advantages for each in (None, order))
    # 0.016 is the standard error of the correlation of 4,096 independent pairs
    assert abs(torch.corrcoef(torch.stack([given, shuffled]))[0, 1].item()) < 0.08


def test_a_placebo_trains_on_scores_of_other_samples_of_the_same_prompt(workshop: Workshop, tmp_path: Path) -> None:
    real = workshop.train(tmp_path / "real", ddpo(), steps=1, **TRAINING)
    placebo = workshop.train(tmp_path / "placebo", ddpo(), steps=1, labels="shuffled", **TRAINING)
    assert placebo.steps()[0]["reward"] == pytest.approx(real.steps()[0]["reward"])
    assert costs(placebo) == costs(real)
    assert not same(placebo, real)
    order = torch.tensor([1, 0, 2, 5, 4, 3])
    judged = judge(ddpo(group=3, advantage="gardo"), {"clip": double([1, 2, 6, 0, 0, 3])}, {"clip": 1}, order)
    assert judged.advantages.tolist() == [-1, -2, 3, 2, -1, -1]


class Repeated(DDPO):
    """DDPO whose every step trains on the run's first collection; its logged gain is what the update should raise."""

    _first: dict[int, RolloutBatch] = PrivateAttr(default_factory=dict)

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:
        first = self._first.setdefault(batch.which, batch)
        log_ratio = first.replay(policy.predict).log_prob - first.log_probs
        losses = clipped_objective(first.advantages, log_ratio, self.clip)
        own = (batch.replay(policy.predict).log_prob - batch.log_probs).detach().abs()
        return StepOutput(
            losses, first.timesteps, {"gain": (first.advantages * log_ratio).detach(), "ratio_error": own}
        )


def test_the_update_makes_steps_with_an_advantage_more_probable(workshop: Workshop, tmp_path: Path) -> None:
    run = workshop.train(tmp_path, Repeated(**SMALL), steps=2, **{**TRAINING, "learning_rate": 1e-5})
    first, second = (line["gain"] for line in run.steps())
    assert first == 0
    assert second > 0


class TestResume:
    @pytest.mark.parametrize("stop", [1, repeated(2), repeated(3)])
    def test_a_run_that_is_stopped_within_a_collection_or_between_two_equals_a_straight_one(
        self, workshop: Workshop, tmp_path: Path, stop: int
    ) -> None:
        straight = workshop.train(tmp_path / "straight", ddpo(updates=2), steps=4, **TRAINING)
        workshop.train(tmp_path / "stopped", ddpo(updates=2), steps=stop, **TRAINING)
        (tmp_path / "stopped/micro/algorithm/name/seed-0/DONE").unlink()
        resumed = workshop.train(tmp_path / "stopped", ddpo(updates=2), steps=4, **TRAINING)
        assert same(straight, resumed)
        assert costs(straight) == costs(resumed)
        assert logged(straight) == logged(resumed)

    @pytest.mark.parametrize("at", [repeated(4), 8])
    def test_a_signal_while_collecting_changes_nothing(
        self, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: None, at: int
    ) -> None:
        training = {**TRAINING, "micro_batch_size": 2}
        straight = workshop.train(tmp_path / "straight", ddpo(), steps=3, **training)
        score, calls = Brightness.score, 0

        def interrupted(self: Brightness, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == at:  # in the first or second collection of four micro-batches; two calls are the check
                os.kill(os.getpid(), signal.SIGTERM)
            return score(self, images, prompts)

        with monkeypatch.context() as patched:
            patched.setattr(Brightness, "score", interrupted)
            with pytest.raises(TerminatedError):
                workshop.train(tmp_path / "killed", ddpo(), steps=3, **training)
        termination._STATE.received = None  # a new command has received nothing
        resumed = workshop.train(tmp_path / "killed", ddpo(), steps=3, **training)
        assert [line["step"] for line in resumed.steps()] == [0, 1, 2]
        assert same(straight, resumed)
        assert costs(straight) == costs(resumed)


def test_the_update_does_not_depend_on_how_a_batch_is_cut(workshop: Workshop, tmp_path: Path) -> None:
    one = workshop.train(tmp_path / "one", ddpo(), steps=1, **TRAINING)
    cut = workshop.train(tmp_path / "cut", ddpo(), steps=1, **{**TRAINING, "micro_batch_size": 3})
    assert cut.steps()[0]["reward"] == pytest.approx(one.steps()[0]["reward"], rel=1e-3)
    assert cut.steps()[0]["gradient_norm"] == pytest.approx(one.steps()[0]["gradient_norm"], rel=1e-2)
    assert costs(cut) == costs(one)


@pytest.mark.slow
def test_two_processes_equal_one(workshop: Workshop, tmp_path: Path) -> None:
    settings = {"algorithm": "ddpo", "fields": {**SMALL, "updates": 2}, "steps": 2, "global_batch_size": 8,
                "micro_batch_size": 3, "learning_rate": 1e-4}  # fmt: skip
    one, two = (train(how, workshop, tmp_path / str(len(how)), **settings) for how in (ALONE, TWO))
    for lonely, joint in zip(one.steps(), two.steps(), strict=True):
        assert joint["reward"] == pytest.approx(lonely["reward"], rel=1e-3)
        assert joint["gradient_norm"] == pytest.approx(lonely["gradient_norm"], rel=1e-2)
    assert costs(one) == costs(two)
    base, ours, theirs = workshop.model().network.state_dict(), weights(one), weights(two)
    assert distance(ours, theirs) < 0.05 * distance(
        ours, base
    )  # Adam turns rounding of small gradients into whole steps


class Mistaken(DDPO):
    """DDPO that replays with other latents than it sampled from."""

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:
        batch.trajectories.latents.add_(0.01)
        return super().step(batch, policy)


class TestRefusals:
    def test_a_replay_that_is_not_the_rollout_stops_before_the_update(self, workshop: Workshop, tmp_path: Path) -> None:
        with pytest.raises(DivergedError, match="the importance ratio must be 1, but"):
            workshop.train(tmp_path, Mistaken(**SMALL), steps=1, **TRAINING)
        assert not list(tmp_path.rglob("DONE"))

    def test_a_clip_range_within_the_noise_of_replay(self, workshop: Workshop, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="clip range of 1e-09 would clip noise; use a clip of at least"):
            workshop.train(tmp_path, ddpo(clip=1e-9), steps=1, **TRAINING)

    def test_the_noise_of_replay_is_measured_where_samples_are_made_one_by_one(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        (line,) = workshop.train(tmp_path, ddpo(), steps=1, **{**TRAINING, "micro_batch_size": 1}).steps()
        assert line["replay_floor"] > 0  # a batch of two has other rounding than one

    def test_groups_that_are_not_whole(self, workshop: Workshop, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="8 samples of a collection .* are not whole groups of 3"):
            workshop.train(tmp_path, ddpo(group=3), steps=1, **TRAINING)

    def test_a_rule_of_another_kind_of_model(self, workshop: Workshop, flow: Workshop, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="use flow-sde, dance-sde or cps"):
            flow.train(tmp_path, ddpo(rule="ddim"), steps=1, **TRAINING)
        with pytest.raises(UserError, match="use rule=ddim"):
            workshop.train(tmp_path, flow_grpo(rule="cps"), steps=1, **TRAINING)


@pytest.mark.parametrize("unit", ["samples", repeated("rewards")])
def test_a_budget_of_samples_or_reward_calls_ends_the_run(workshop: Workshop, tmp_path: Path, unit: str) -> None:
    run = workshop.train(tmp_path, ddpo(), budget={"unit": unit, "amount": 20}, **TRAINING)
    assert len(run.steps()) == 3


def test_a_budget_of_samples_ends_with_the_last_step_of_a_collection(workshop: Workshop, tmp_path: Path) -> None:
    """A collection of 16 samples is paid for before its two steps; both are taken."""
    run = workshop.train(tmp_path, ddpo(updates=2), budget={"unit": "samples", "amount": 20}, **TRAINING)
    assert (len(run.steps()), run.ledger()["samples"], run.ledger()["pairs"]) == (4, 32, 32)
