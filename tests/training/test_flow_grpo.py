"""The published variants of Flow-GRPO: which steps are trained, ratios, masks and distances."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from worked import assert_exact, double
from workshop import Workshop

from algorithms.flow_grpo import FlowGRPO, centred_log_ratio, masked_objective
from bench import ODE, Step
from bench.core.errors import UserError
from bench.experiments.contracts.small_models import PROCESSES
from bench.models.forward_process import FlowProcess, ForwardProcess, Transition
from bench.rollouts.rules import Ddim, FlowSde, Rule
from bench.training.ratios import squared_mean_shift

SMALL: dict[str, Any] = {"rewards": "clip", "group": 4, "sampling_steps": 4, "trained": 2, "within": 3, "clip": 1e-3}
TRAINING: dict[str, Any] = {"global_batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-3}


def step(velocity: list[float]) -> Step:
    """The step from s = .8 to .7 at [.2, -.4] under a velocity, which led to [.1, -.35]."""
    process = FlowProcess(double([0.3, 0.2]), double([0.7, 0.8]))
    xt, prediction = double([[0.2, -0.4]]), double([velocity])
    transition = FlowSde(0.7).transition(xt, prediction, process, torch.tensor([1]), torch.tensor([0]))
    return Step(prediction, transition, double([[0.1, -0.35]]))


OLD, NEW, REFERENCE = step([0.5, 0.1]), step([0.52, 0.08]), step([0.4, 0.2])
LENGTH = double([0.1])
LOG_RATIO = NEW.log_prob - OLD.log_prob
MOVED = squared_mean_shift(NEW.transition.mean - OLD.transition.mean, NEW.transition.std)


def assert_figures(found: Tensor, value: float, digits: float = 6e-11) -> None:
    """Equal to a figure that is written with so many digits."""
    torch.testing.assert_close(found, double([value]), rtol=0, atol=digits)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"hold": 5}, "hold=5 has no effect without window=sliding"),
        ({"stride": 2, "window": "contiguous"}, "stride=2 has no effect without window=sliding"),
        ({"divergence": 1e-4}, "divergence=0.0001 has no effect without objective=dppo"),
        ({"distance": "exact", "beta": 0}, "distance=exact has no effect without a beta above 0"),
        ({"distance": "behaviour"}, "distance=behaviour has no effect at the first step from a collection"),
        ({"noise_outside": False, "sampling_steps": 4, "trained": 4}, "noise_outside=False has no effect where every"),
        (
            {"window": "contiguous", "trained": 5},
            "window=contiguous has no effect where trained=5 of 5 steps are trained",
        ),
        ({"window": "sliding", "trained": 4, "within": 9, "sampling_steps": 4}, "window=sliding has no effect where"),
        ({"objective": "dppo"}, "objective=dppo has no effect at the first step .* so it needs updates above 1"),
    ],
)
def test_an_option_that_has_no_effect_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FlowGRPO(**fields)


class TestRatios:
    def test_the_fixture(self) -> None:
        torch.testing.assert_close(NEW.transition.mean, double([[0.11076, -0.36096]]), rtol=0, atol=1e-9)
        assert_figures(NEW.transition.std, 0.4427188724)
        assert_figures(LOG_RATIO, 1.5378290816e-4)
        assert_figures(LOG_RATIO.exp(), 1.0001537947)
        assert_figures(MOVED, 1.5816581633e-5)
        assert_figures((NEW.transition.mean - OLD.transition.mean).square().mean(1), 6.2001e-6)

    def test_the_centred_ratio_of_guard(self) -> None:
        centred = centred_log_ratio(LOG_RATIO, MOVED, NEW.transition.std)
        assert_figures(centred.exp(), 1.0000750877)
        # Under the old policy its mean is 0: it is the mean of z (mu - mu_old).
        z = (OLD.following - OLD.transition.mean) / OLD.transition.std
        assert_exact(centred, (z * (NEW.transition.mean - OLD.transition.mean)).mean(1).tolist())

    @pytest.mark.parametrize(
        ("objective", "clip", "expected"),
        [
            ("guard", 1e-4, -1.2000901053),
            ("guard-dt", 1e-4, -12.0009010526),
            ("guard", 2e-6, -1.2000024),
            ("guard-dt", 2e-6, -12.000024),
        ],
    )
    def test_guard(self, objective: Any, clip: float, expected: float) -> None:
        algorithm = FlowGRPO(objective=objective, clip=clip)
        losses, clipped = algorithm.policy_losses(double([1.2]), LOG_RATIO, MOVED, NEW.transition.std, LENGTH)
        assert_figures(losses, expected)
        assert clipped.tolist() == [clip == 2e-6]

    @pytest.mark.parametrize(
        ("advantage", "most", "expected"),
        [(1.2, 1e-5, 0.0), (1.2, 2e-5, -1.2 * 1.0001537947), (-0.7, 1e-5, 0.7 * 1.0001537947)],
    )
    def test_dppo_masks_a_step_that_would_move_further_away(
        self, advantage: float, most: float, expected: float
    ) -> None:
        assert_figures(masked_objective(double([advantage]), LOG_RATIO, MOVED, most), expected, 1e-10)
        _, masked = FlowGRPO(objective="dppo", updates=2, divergence=most).policy_losses(
            double([advantage]), LOG_RATIO, MOVED, NEW.transition.std, LENGTH
        )
        assert masked.tolist() == [expected == 0]

    def test_a_ratio_that_fell_is_masked_for_bad_samples(self) -> None:
        masked = masked_objective(double([1.2, -1.2]), -LOG_RATIO.expand(2), MOVED.expand(2), 1e-5)
        assert (masked == 0).tolist() == [False, True]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("diffusion", 3.9541454082e-05),
        ("exact", 7.908290816e-04 / 2),  # over two elements
        ("prediction", 0.01),
        ("behaviour", 1.5378290816e-4**2 / 2),
    ],
)
def test_what_beta_multiplies(kind: Any, expected: float) -> None:
    reference = None if kind == "behaviour" else REFERENCE
    assert_figures(FlowGRPO(distance=kind, updates=2).distances(OLD, reference, LOG_RATIO, LENGTH), expected)


class TestWindows:
    def test_a_contiguous_window_is_drawn_for_each_collection(self) -> None:
        algorithm = FlowGRPO(window="contiguous", trained=3, within=6)
        kept = [algorithm.kept(0, collection) for collection in range(60)]
        assert {each[0] for each in kept} == {0, 1, 2, 3}
        assert all(each == [*range(each[0], each[0] + 3)] for each in kept)

    @pytest.mark.parametrize(
        ("stride", "starts"), [(1, [0, 0, 1, 1, 2, 2, 3, 3, 0, 0]), (2, [0, 0, 2, 2, 3, 3, 0, 0, 2, 2])]
    )
    def test_a_window_slides_and_starts_again(self, stride: int, starts: list[int]) -> None:
        algorithm = FlowGRPO(window="sliding", trained=4, within=7, hold=2, stride=stride)
        kept = [algorithm.kept(0, collection) for collection in range(10)]
        assert [each[0] for each in kept] == starts
        assert all(each == [*range(each[0], each[0] + 4)] for each in kept)

    def test_steps_outside_the_window_have_no_noise(self) -> None:
        algorithm = FlowGRPO(**SMALL, window="sliding", hold=1, noise_outside=False)
        schedule = algorithm.schedule(FlowProcess(double([1, 0]), double([0, 1])), 0, 1)
        assert [rule == ODE for rule in schedule.rules] == [True, False, False, True]


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("flow"), PROCESSES["flow"])


@pytest.mark.parametrize(
    ("fields", "references"),
    [
        ({"objective": "guard-dt", "window": "contiguous", "noise_outside": False, "beta": 0.0}, 0),
        pytest.param({"objective": "dppo", "distance": "behaviour", "same_start": True}, 0, marks=pytest.mark.slow),
        pytest.param({"objective": "guard", "distance": "prediction", "beta": 0.01}, 1, marks=pytest.mark.slow),
    ],
)
def test_a_run_starts_where_it_sampled_and_calls_the_reference_if_it_needs_it(
    flow: Workshop, tmp_path: Path, fields: dict[str, Any], references: int
) -> None:
    run = flow.train(tmp_path, FlowGRPO(**SMALL, **fields, updates=2), steps=2, **TRAINING)
    first, second = run.steps()
    assert first["ratio_error"] == first["clipped"] == 0 < second["ratio_error"]
    assert ("kl_nats" in first) == bool(references)
    assert run.ledger()["reference_forwards"] == 2 * references * 8 * 2


def test_a_clip_of_guard_is_compared_with_the_noise_of_what_it_clips(flow: Workshop, tmp_path: Path) -> None:
    """Guard multiplies log ratios, and so their noise, by the deviation of the step, of which the largest here is 0.87."""
    fields = {**SMALL, "objective": "guard", "beta": 0.0, "trained": 3}
    (line,) = flow.train(tmp_path / "wide", FlowGRPO(**fields), steps=1, **TRAINING).steps()
    between = 2.9 * line["replay_floor"]
    flow.train(tmp_path / "guard", FlowGRPO(**{**fields, "clip": between}), steps=1, **TRAINING)
    with pytest.raises(UserError, match="would clip noise"):
        flow.train(tmp_path / "clip", FlowGRPO(**{**fields, "clip": between, "objective": "clip"}), steps=1, **TRAINING)


class Uneven(Ddim):
    """A step whose mean depends on the batch size, as on a GPU that chooses its kernels by it; the more, the later the step."""

    def transition(self, xt: Tensor, prediction: Tensor, process: ForwardProcess, t: Tensor, to: Tensor) -> Transition:
        exact = super().transition(xt, prediction, process, t, to)
        return dataclasses.replace(exact, mean=exact.mean + 1e-4 * len(xt) * (SMALL["sampling_steps"] + 1 - int(t[0])))


class UnevenSteps(FlowGRPO):
    """Flow-GRPO with such steps."""

    def rules(self, process: ForwardProcess, kept: Sequence[int]) -> list[Rule]:
        return [Uneven(rule.noise) for rule in super().rules(process, kept)]


def test_the_noise_of_replay_is_known_of_every_step_and_logged_of_those_that_are_trained(
    workshop: Workshop, tmp_path: Path
) -> None:
    """A sliding window trains one step of three after another, and comes back to the first."""
    fields = {**SMALL, "window": "sliding", "hold": 1, "trained": 1, "clip": 0.9}
    lines = workshop.train(tmp_path / "all", UnevenSteps(**fields), steps=4, **TRAINING).steps()
    first, second, third, again = (line["replay_floor"] for line in lines)
    assert 0 < 2 * first < second < third
    assert again == first
    refused = UnevenSteps(**{**fields, "clip": 2.9 * third})
    with pytest.raises(UserError, match="of sampling step 3 differ by .* would clip noise"):
        workshop.train(tmp_path / "clip", refused, steps=1, **TRAINING)  # although this trains the first step alone


def test_objectives_of_densities_are_refused_without_one() -> None:
    with pytest.raises(ValueError, match="objective=guard needs densities, which rule=cps does not have"):
        FlowGRPO(rule="cps", objective="guard")
