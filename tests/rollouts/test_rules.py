"""Transitions of every rule: numbers worked by hand, diffusers' own steps, and what no rule may do."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor
from worked import assert_exact, double

from bench.core.errors import UserError
from bench.models.forward_process import (
    EpsilonProcess,
    FlowProcess,
    ForwardProcess,
    Transition,
    VelocityProcess,
    build_forward_process,
)
from bench.rollouts.rules import Cps, DanceSde, Ddim, FlowSde, Rule, find_rule

ONE, ZERO = torch.tensor([1]), torch.tensor([0])
X, V, X_NEXT = double([[0.2, -0.4]]), double([[0.5, 0.1]]), double([[0.1, -0.35]])


def flow(s: float, s_to: float) -> FlowProcess:
    """A flow whose level 1 is ``s`` and whose level 0 is ``s_to``."""
    sigma = double([s_to, s])
    return FlowProcess(1 - sigma, sigma)


def step(rule: Rule, s: float = 0.8, s_to: float = 0.7, v: Tensor = V) -> Transition:
    return rule.transition(X, v, flow(s, s_to), ONE, ZERO)


@pytest.mark.parametrize(
    ("rule", "std", "mean", "log_prob"),
    [
        (FlowSde(0.7), 0.4427188724, [0.11325, -0.36345], -0.1045728981),
        (DanceSde(0.3), 0.0948683298, [0.1483125, -0.4078625], 1.2784888575),
        (Cps(0.8), 0.6657395614, [0.0048935688, -0.2261985205], -0.0121860198),
        (Cps(0.7), 0.6237045669, [0.0353380049, -0.2647614729], -0.0057233901),
        (Cps(0.0), 0.0, [0.15, -0.41], -0.00305),
    ],
)
def test_flow_steps_by_hand(rule: Rule, std: float, mean: list[float], log_prob: float) -> None:
    found = step(rule)
    assert_exact(found.std, [std])
    assert_exact(found.mean, [mean])
    assert_exact(found.log_prob(X_NEXT), [log_prob])


def test_a_ddim_step_by_hand() -> None:
    abar = double([0.6, 0.5])
    process = EpsilonProcess(abar.sqrt(), (1 - abar).sqrt())
    found = Ddim(1.0).transition(X, double([[0.1, 0.3]]), process, ONE, ZERO)
    assert_exact(found.std, [0.3651483717])
    assert_exact(found.mean, [[0.1932691340, -0.5156377129]])
    assert_exact(found.log_prob(double([[0.25, -0.5]])), [0.0820199848])
    assert_exact(2 * found.log_prob(double([[0.25, -0.5]])), [0.1640399696])


def test_the_ratio_of_two_policies_by_hand() -> None:
    old, new = step(FlowSde(0.7)), step(FlowSde(0.7), v=double([[0.52, 0.08]]))
    assert_exact(new.mean, [[0.11076, -0.36096]])
    assert_exact(new.log_prob(X_NEXT) - old.log_prob(X_NEXT), [1.5378290816e-4])


def test_at_pure_noise_flow_sde_divides_by_one_minus_the_next_level() -> None:
    # g^2 = 0.49 / (1 - 0.9), ds = -0.1
    assert_exact(step(FlowSde(0.7), 1.0, 0.9).std, [math.sqrt(0.49 / (1 - 0.9) * 0.1)])


@pytest.mark.parametrize("rule", [FlowSde(0.0), DanceSde(0.0), Cps(0.0), Ddim(0.0)])
def test_without_noise_every_flow_step_is_eulers(rule: Rule) -> None:
    found = step(rule, 0.75, 0.5)
    assert_exact(found.mean, (X + (0.5 - 0.75) * V).tolist())
    assert found.std.tolist() == [0]


def test_cps_at_full_strength_is_the_stochastic_flow_step_of_diffusers() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    scheduler.set_timesteps(5)
    sigma = scheduler.sigmas.double().flip(0)
    process = FlowProcess(1 - sigma, sigma)
    x, v = torch.randn(2, 3, 4, generator=torch.manual_seed(0)), torch.randn(2, 3, 4)
    for number, t in enumerate(scheduler.timesteps):
        torch.manual_seed(number)
        expected = scheduler.step(v, t, x).prev_sample
        level = torch.full((2,), 5 - number)
        torch.manual_seed(number)
        found = Cps(1.0).transition(x, v, process, level, level - 1).sample(torch.randn(2, 3, 4))
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_the_step_of_diffusers(prediction_type: str, eta: float) -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction_type,
    )  # fmt: skip
    scheduler.set_timesteps(10)
    process = build_forward_process(scheduler.config)
    x, predicted, noise = torch.randn(3, 2, 3, 4, generator=torch.manual_seed(1))
    for t in scheduler.timesteps:
        expected = scheduler.step(predicted, t, x, eta=eta, variance_noise=noise if eta else None).prev_sample
        now = t.expand(2)
        found = Ddim(eta).transition(x, predicted, process, now, now - 100).sample(noise)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction_type", [EpsilonProcess, VelocityProcess])
@pytest.mark.parametrize("name", ["flow-sde", "dance-sde", "cps"])
def test_flow_rules_are_for_flows(name: str, prediction_type: type[ForwardProcess]) -> None:
    process = prediction_type(double([1.0]), double([0.0]))
    with pytest.raises(UserError, match=f"predicts {prediction_type.prediction_type}; use rule=ddim"):
        find_rule(name, 0.5, process)


def test_noise_by_ddim_is_not_for_flows() -> None:
    assert find_rule("ddim", 0.0, flow(0.8, 0.7)) == Ddim(0.0)
    with pytest.raises(UserError, match="use flow-sde, dance-sde or cps"):
        find_rule("ddim", 0.5, flow(0.8, 0.7))


def test_a_rule_that_is_not_named_is_the_published_one_of_the_kind_of_model() -> None:
    assert find_rule(None, None, flow(0.8, 0.7)) == FlowSde(0.7)
    assert find_rule(None, None, EpsilonProcess(double([1.0]), double([0.0]))) == Ddim(1.0)
    assert [find_rule(name, None, flow(0.8, 0.7)).noise for name in ("dance-sde", "cps")] == [0.3, 0.8]


def test_more_noise_than_a_level_has_is_refused() -> None:
    epsilon = EpsilonProcess(double([1.0]), double([0.0]))
    assert (find_rule("ddim", 1.0, epsilon), find_rule("cps", 1.0, flow(0.8, 0.7))) == (Ddim(1.0), Cps(1.0))
    with pytest.raises(UserError, match="noise=2 is too much for rule=ddim; use at most 1"):
        find_rule("ddim", 2.0, epsilon)
    with pytest.raises(UserError, match="noise=3 is too much for rule=cps; use at most 1"):
        find_rule("cps", 3.0, flow(0.8, 0.7))
    assert find_rule("flow-sde", 3.0, flow(0.8, 0.7)) == FlowSde(3.0)  # an SDE's noise has no such bound
