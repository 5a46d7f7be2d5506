from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.models.forward_process import (
    EpsilonProcess,
    FlowProcess,
    ForwardProcess,
    Transition,
    VelocityProcess,
    build_forward_process,
)

SD = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
ABAR = {
    0: 0.99915, 1: 0.998296027838, 2: 0.997438081988, 51: 0.950524321873, 101: 0.892980537081, 201: 0.752143401636,
    301: 0.58881870415, 350: 0.506487300835, 401: 0.422881524262, 500: 0.276332683823, 501: 0.27499906685,
    601: 0.159816437446, 801: 0.0365465246077, 901: 0.0140048978939, 999: 0.00466009851308,
}  # fmt: skip

PROCESSES = {
    "epsilon": build_forward_process({**SD, "prediction_type": "epsilon"}),
    "v_prediction": build_forward_process({**SD, "prediction_type": "v_prediction"}),
    "flow": build_forward_process({"num_train_timesteps": 1000, "shift": 3.0}),
}


@pytest.fixture(params=PROCESSES)
def process(request: pytest.FixtureRequest) -> ForwardProcess:
    return PROCESSES[request.param]


def some(seed: int, count: int = 4) -> Tensor:
    return torch.randn(count, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def one(value: float) -> Tensor:
    return torch.full((1, 1), value, dtype=torch.float64)


@pytest.mark.parametrize(("t", "abar"), ABAR.items())
def test_the_schedule_of_stable_diffusion_has_the_published_products(t: int, abar: float) -> None:
    process = PROCESSES["epsilon"]
    at = torch.tensor([t])
    assert process.alpha(at, one(0)).item() ** 2 == pytest.approx(abar, rel=1e-11)
    assert process.sigma(at, one(0)).item() ** 2 == pytest.approx(1 - abar, rel=1e-8)


def test_times_below_zero_count_as_zero(process: ForwardProcess) -> None:
    late = process.alpha(torch.tensor([-99]), one(0)), process.sigma(torch.tensor([-1]), one(0))
    assert late == (process.alpha(torch.tensor([0]), one(0)), process.sigma(torch.tensor([0]), one(0)))


def test_half_precision_latents_get_a_schedule_that_is_not_rounded_to_half() -> None:
    sigma = PROCESSES["epsilon"].sigma(torch.tensor([0]), torch.zeros(1, 1, dtype=torch.float16))
    assert sigma.dtype == torch.float32
    assert sigma.item() ** 2 == pytest.approx(0.00085, rel=1e-6)  # in half precision it would be 0.0009765625


def test_noising_mixes_signal_and_noise_by_hand() -> None:
    t = torch.tensor([401])
    expected = math.sqrt(0.422881524262) * 2 + math.sqrt(0.577118475738) * -3
    assert PROCESSES["epsilon"].add_noise(one(2), one(-3), t).item() == pytest.approx(expected, abs=1e-11)


def test_a_flow_runs_straight_from_data_to_noise_with_the_shift_of_its_scheduler() -> None:
    process, t = PROCESSES["flow"], torch.tensor([499])  # 500 / 1000, shifted by 3: 1.5 / 2 = 0.75
    assert process.add_noise(one(2), one(-4), t).item() == pytest.approx(0.25 * 2 + 0.75 * -4, abs=1e-12)
    assert process.target(one(2), one(-4), t).item() == pytest.approx(-6, abs=1e-12)


def test_velocity_is_signal_times_noise_minus_sigma_times_data() -> None:
    expected = math.sqrt(0.422881524262) * -3 - math.sqrt(0.577118475738) * 2
    target = PROCESSES["v_prediction"].target(one(2), one(-3), torch.tensor([401]))
    assert target.item() == pytest.approx(expected, abs=1e-11)


def test_the_right_prediction_gives_back_data_and_noise_at_mixed_times(process: ForwardProcess) -> None:
    x0, noise, t = some(1), some(2), torch.tensor([0, 17, 500, 990])
    xt = process.add_noise(x0, noise, t)
    target = process.target(x0, noise, t)
    torch.testing.assert_close(process.to_x0(xt, target, t), x0, rtol=0, atol=1e-11)
    torch.testing.assert_close(process.to_epsilon(xt, target, t), noise, rtol=0, atol=1e-11)
    torch.testing.assert_close(process.implied_noise(x0, xt, t), noise, rtol=0, atol=1e-11)


def test_a_deterministic_step_with_the_right_prediction_lands_on_the_path(process: ForwardProcess) -> None:
    x0, noise = some(1), some(2)
    t, previous = torch.tensor([100, 300, 700, 990]), torch.tensor([0, 250, 350, 100])
    xt = process.add_noise(x0, noise, t)
    step = process.transition(xt, process.target(x0, noise, t), t, previous, eta=0.0)
    torch.testing.assert_close(step.mean, process.add_noise(x0, noise, previous), rtol=0, atol=1e-11)
    assert step.std.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("previous", "t", "tenth"),
    [(0, 1, 0.002064832017), (1, 101, 0.004098418662), (101, 201, 0.02609568708), (301, 401, 0.04480899881),
     (801, 901, 0.07763321643)],
)  # fmt: skip
def test_a_full_stochastic_step_has_the_deviation_of_ddpm(previous: int, t: int, tenth: float) -> None:
    step = PROCESSES["epsilon"].transition(one(1), one(0.5), torch.tensor([t]), torch.tensor([previous]), eta=1.0)
    assert step.std.item() == pytest.approx(10 * tenth, rel=1e-9)


def test_a_full_stochastic_step_has_the_mean_of_ddpm() -> None:
    # The posterior mean of Ho et al. 2020, eq. 7, between neighbouring times.
    before, now = 0.998296027838, 0.997438081988
    alpha = now / before
    x0, xt = 0.7, -0.4
    expected = math.sqrt(before) * (1 - alpha) / (1 - now) * x0 + math.sqrt(alpha) * (1 - before) / (1 - now) * xt
    noise = (xt - math.sqrt(now) * x0) / math.sqrt(1 - now)
    step = PROCESSES["epsilon"].transition(one(xt), one(noise), torch.tensor([2]), torch.tensor([1]), eta=1.0)
    assert step.mean.item() == pytest.approx(expected, abs=1e-9)


def test_log_density_is_the_mean_over_elements_by_hand() -> None:
    step = Transition(torch.tensor([[0.10, -0.20]]), torch.tensor([0.5]))
    # -(0.1^2 + 0.1^2) / 2 / (2 * 0.25) - ln 0.5 - ln(2 pi) / 2
    expected = -0.02 + 0.693147180560 - 0.918938533205
    assert step.log_prob(torch.tensor([[0.20, -0.10]])).item() == pytest.approx(expected, abs=1e-6)


def test_log_ratios_of_two_policies_by_hand() -> None:
    std = torch.tensor([0.5])
    policy = Transition(torch.tensor([[0.10, -0.20]]), std)
    reference = Transition(torch.tensor([[0.12, -0.25]]), std)
    winner, loser = torch.tensor([[0.20, -0.10]]), torch.tensor([[0.00, -0.35]])
    assert (policy.log_prob(winner) - reference.log_prob(winner)).item() == pytest.approx(0.0089, abs=1e-6)
    assert (policy.log_prob(loser) - reference.log_prob(loser)).item() == pytest.approx(-0.0081, abs=1e-6)


def test_each_sample_of_a_batch_has_its_own_deviation() -> None:
    step = Transition(torch.zeros(2, 3), torch.tensor([1.0, 2.0]))
    assert step.log_prob(torch.zeros(2, 3)).tolist() == pytest.approx([-0.9189385, -1.6120857], abs=1e-6)


def test_uniform_draws_cover_all_times_evenly(process: ForwardProcess) -> None:
    draws = torch.arange(2000, dtype=torch.float64) / 2000
    times = process.timesteps(draws)
    assert times.dtype == torch.int64
    assert torch.bincount(times).tolist() == [2] * 1000


def test_the_scheduler_configuration_chooses_the_process() -> None:
    kinds = [type(process) for process in PROCESSES.values()]
    assert kinds == [EpsilonProcess, VelocityProcess, FlowProcess]


def test_an_unknown_prediction_type_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="'sample' is not supported: use epsilon"):
        build_forward_process({**SD, "prediction_type": "sample"})


def test_an_unknown_schedule_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="'cosine' is not supported: use scaled_linear"):
        build_forward_process({**SD, "beta_schedule": "cosine"})
