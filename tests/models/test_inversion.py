from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from round_trip import pictures, round_trip
from torch import Tensor

from bench.models.forward_process import EpsilonProcess, ForwardProcess, build_forward_process
from bench.models.inversion import Endpoint, Inversion, InversionSettings, Renoise, invert, posterior_std
from bench.tiny import TINY

SD = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROCESS = build_forward_process(SD)
X0 = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
ENDPOINTS: tuple[Endpoint, ...] = ("grid", "exact", "official")
RENOISES: tuple[Renoise, ...] = ("none", "next", "same")

# The toy network eps(x, t) = 0.1 x + 0.001 t from x0 = [1, -0.5], ten steps: latents at 1, 101, ... 401.
TRACES: dict[Renoise, list[tuple[float, float]]] = {
    "none": [(0.9995846962, -0.5015946778), (0.9744756714, -0.4885622266), (0.9335519032, -0.4380785608),
             (0.8850866027, -0.3560531017), (0.8343109213, -0.2443450913)],
    "same": [(0.9995844442, -0.5015956455), (0.9741137339, -0.4883754388), (0.9328084398, -0.4374047358),
             (0.883928134, -0.3546207374), (0.8327567067, -0.2418943536)],
    "next": [(1.000191289, -0.5009888005), (0.9891097956, -0.4733793771), (0.9567391927, -0.4134739829),
             (0.9155963452, -0.3229525263), (0.8710474284, -0.2036036319)],
}  # fmt: skip
# For t = 350 they end at 401: the latents, the noise that the released code computes with t = 350, and the one of 401.
ENDS: dict[Renoise, tuple[tuple[float, float], ...]] = {
    "none": ((0.834310921271, -0.24434509127), (0.174563570064, 0.158710016006), (0.242229289028, 0.106362259851)),
    "same": ((0.832756706739, -0.24189435359), (0.172351179492, 0.162198587773), (0.240183416945, 0.109588259672)),
    "next": ((0.871047428391, -0.203603631938), (0.226857188691, 0.216704596972), (0.290586959622, 0.159991802349)),
}


class Toy:
    """eps(x, t) = 0.1 x + 0.001 t, remembering what it was asked."""

    def __init__(self) -> None:
        self.times: list[list[int]] = []

    def __call__(self, x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        self.times.append(t.tolist())
        return 0.1 * x + 0.001 * t.double().reshape(-1, *(1,) * (x.ndim - 1)).to(x)

    @property
    def asked(self) -> int:
        """Samples that were asked about in all calls."""
        return sum(map(len, self.times))


def toy(t: list[int], x0: Tensor | None = None, *, steps: int = 10, **options: Any) -> tuple[Inversion, Toy]:
    network = Toy()
    start = X0.expand(len(t), 2) if x0 is None else x0
    rest = {name: options.pop(name) for name in ("noise", "any_rank", "dummy_forward") if name in options}
    return invert(network, PROCESS, start, torch.tensor(t), InversionSettings(steps, **options), **rest), network


def mismatch(steps: int, t: list[int]) -> tuple[list[int], Tensor]:
    """Where the grid ends for times t, and the noise's deviation when those latents are called t (unit data and noise)."""
    at = torch.tensor(t)
    grid = toy(t, steps=steps)[0].timesteps
    data = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(len(t), 2)
    noise = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(len(t), 2)
    tau = PROCESS.implied_noise(data, PROCESS.add_noise(data, noise, grid), at)
    return grid.tolist(), tau.norm(dim=1)


class TestWorkedExample:
    @pytest.mark.parametrize("renoise", RENOISES)
    def test_every_step_of_the_trace_is_the_published_one(self, renoise: Renoise) -> None:
        times = [1, 101, 201, 301, 401]
        inverted, _ = toy(times, endpoint="official", renoise=renoise)
        expected = torch.tensor(TRACES[renoise], dtype=torch.float64)  # ten digits
        torch.testing.assert_close(inverted.latents, expected, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("renoise", RENOISES)
    def test_latents_and_noise_for_t_350_are_the_published_ones(self, renoise: Renoise) -> None:
        latents, tau_350, tau_401 = (torch.tensor([row], dtype=torch.float64) for row in ENDS[renoise])
        inverted, _ = toy([350], endpoint="official", renoise=renoise)
        torch.testing.assert_close(inverted.latents, latents, rtol=0, atol=1e-9)
        assert inverted.timesteps.tolist() == [350]
        torch.testing.assert_close(inverted.noise, tau_350, rtol=0, atol=1e-9)
        on_grid = PROCESS.implied_noise(X0, inverted.latents, torch.tensor([401]))
        torch.testing.assert_close(on_grid, tau_401, rtol=0, atol=1e-9)

    def test_our_default_differs_from_the_published_numbers_by_its_first_call_at_time_zero_only(self) -> None:
        # By hand: x = 1, e = 0.1 at t = 0, from abar 0.99915 to 0.998296027838.
        e = 0.1
        x0 = (1 - math.sqrt(1 - 0.99915) * e) / math.sqrt(0.99915)
        expected = math.sqrt(0.998296027838) * x0 + math.sqrt(1 - 0.998296027838) * e
        assert toy([1])[0].latents[0, 0].item() == pytest.approx(expected, abs=1e-11)


class TestGrid:
    def test_ten_steps_ask_at_the_published_times(self) -> None:
        _, network = toy([901], endpoint="official", steps=10)
        assert network.times == [[-99], [1], [101], [201], [301], [401], [501], [601], [701], [801]]

    def test_five_steps_ask_at_the_published_times(self) -> None:
        _, network = toy([801], endpoint="official", steps=5)
        assert network.times == [[-199], [1], [201], [401], [601]]

    @pytest.mark.parametrize(("steps", "mean"), [(10, 6.382), (5, 3.792)])
    @pytest.mark.parametrize("endpoint", ["grid", "official"])
    def test_mean_cost_over_all_times_is_the_published_one(self, steps: int, mean: float, endpoint: Endpoint) -> None:
        times = list(range(1000))
        assert toy(times, steps=steps, endpoint=endpoint)[1].asked == round(1000 * mean)
        assert toy(times, steps=steps, endpoint=endpoint, renoise="next")[1].asked == round(2000 * mean)

    def test_renoise_asks_a_second_time_at_the_end_of_a_step_or_at_its_start_as_released(self) -> None:
        assert toy([101], renoise="next")[1].times == [[0], [1], [1], [101]]
        assert toy([101], renoise="same")[1].times == [[0], [0], [1], [1]]
        assert toy([101], renoise="same", endpoint="official")[1].times == [[-99], [-99], [1], [1]]

    def test_exact_landing_shortens_the_last_step(self) -> None:
        assert toy([350], endpoint="exact", renoise="next")[1].times == [[0], [1], [1], [101], [101], [201], [201], [301],
                                                                        [301], [350]]  # fmt: skip


class TestNoiseLevelMismatch:
    @pytest.mark.parametrize(
        ("steps", "t", "grid", "std"),
        [
            (5, 0, 1, 1.416), (5, 1, 1, 1.0), (5, 2, 201, 10.17), (5, 10, 201, 5.255), (5, 51, 201, 2.29),
            (5, 102, 201, 1.531), (5, 350, 401, 1.085), (5, 601, 601, 1.0), (5, 702, 801, 1.029), (5, 950, 801, 0.9908),
            (5, 999, 801, 0.9915),
            (10, 0, 1, 1.416), (10, 1, 1, 1.0), (10, 2, 101, 6.55), (10, 10, 101, 3.383), (10, 51, 101, 1.477),
            (10, 102, 201, 1.531), (10, 350, 401, 1.085), (10, 601, 601, 1.0), (10, 702, 801, 1.029),
            (10, 950, 901, 0.9975), (10, 999, 901, 0.9966),
        ],
    )  # fmt: skip
    def test_calling_grid_latents_by_another_time_inflates_the_noise_as_published(
        self, steps: int, t: int, grid: int, std: float
    ) -> None:
        ends, deviation = mismatch(steps, [t])
        assert ends == [grid]
        assert deviation.item() == pytest.approx(std, rel=5e-4)

    @pytest.mark.parametrize(
        ("steps", "above_1_2", "above_2", "largest"),
        [(5, 0.274, 0.063, 10.173088614806145), (10, 0.148, 0.027, 6.549849543774134)],
    )
    def test_over_all_times_the_mismatch_is_the_published_one(
        self, steps: int, above_1_2: float, above_2: float, largest: float
    ) -> None:
        deviation = mismatch(steps, list(range(1000)))[1]
        assert (deviation > 1.2).double().mean().item() == pytest.approx(above_1_2, abs=1e-12)
        assert (deviation > 2).double().mean().item() == pytest.approx(above_2, abs=1e-12)
        assert deviation.min() >= 0.9
        assert deviation.max().item() == pytest.approx(largest, rel=1e-9)


class TestLanding:
    @pytest.mark.parametrize(
        ("t", "reached"), [(0, 1), (1, 1), (2, 101), (101, 101), (350, 401), (901, 901), (902, 901), (999, 901)]
    )
    def test_snap_returns_the_grid_time_where_the_latents_are(self, t: int, reached: int) -> None:
        assert toy([t])[0].timesteps.tolist() == [reached]

    @pytest.mark.parametrize("endpoint", ["grid", "exact"])
    @pytest.mark.parametrize("renoise", RENOISES)
    @pytest.mark.parametrize("steps", [5, 10, 15, 334])  # the last two do not divide the number of times
    def test_latents_lie_exactly_at_the_time_returned(self, endpoint: Endpoint, renoise: Renoise, steps: int) -> None:
        # The network is right about one constant noise, so where the latents are can be seen from them.
        data = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(1000, 2)
        noise = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
        times = torch.arange(1000)
        start = PROCESS.add_noise(data, noise, torch.zeros(1000, dtype=torch.int64))
        inverted = invert(
            lambda x, t, rows: noise.expand_as(x),
            PROCESS,
            start,
            times,
            InversionSettings(steps, endpoint, renoise),
        )
        expected = PROCESS.add_noise(data, noise, inverted.timesteps)
        torch.testing.assert_close(inverted.latents, expected, rtol=0, atol=1e-12)
        assert (
            times - inverted.timesteps
        ).max() < 1000 // steps  # every time is reached, but for the last part of a stride

    def test_exact_returns_the_wanted_time(self) -> None:
        assert toy(list(range(1000)), endpoint="exact")[0].timesteps.tolist() == list(range(1000))

    @pytest.mark.parametrize("endpoint", ENDPOINTS)
    @pytest.mark.parametrize("renoise", RENOISES)
    def test_the_noise_returned_connects_clean_and_inverted_latents(self, endpoint: Endpoint, renoise: Renoise) -> None:
        inverted, _ = toy([0, 2, 350, 999], endpoint=endpoint, renoise=renoise)
        again = PROCESS.add_noise(X0, inverted.noise, inverted.timesteps)
        torch.testing.assert_close(again, inverted.latents, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("endpoint", ["grid", "exact"])
    @pytest.mark.parametrize("renoise", RENOISES)
    def test_the_network_is_never_asked_about_times_below_zero(self, endpoint: Endpoint, renoise: Renoise) -> None:
        _, network = toy(list(range(1000)), endpoint=endpoint, renoise=renoise)
        assert min(map(min, network.times)) == 0
        assert max(map(max, network.times)) <= 999


class TestBatch:
    @pytest.mark.parametrize("endpoint", ENDPOINTS)
    @pytest.mark.parametrize("renoise", RENOISES)
    def test_mixed_times_in_one_batch_equal_one_by_one(self, endpoint: Endpoint, renoise: Renoise) -> None:
        times = [999, 0, 350, 2, 101, 902, 1]
        x0 = torch.randn(len(times), 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        whole, _ = toy(times, x0, endpoint=endpoint, renoise=renoise)
        for row, t in enumerate(times):
            single, _ = toy([t], x0[row : row + 1], endpoint=endpoint, renoise=renoise)
            assert torch.equal(single.latents[0], whole.latents[row])
            assert torch.equal(single.noise[0], whole.noise[row])
            assert single.timesteps[0] == whole.timesteps[row]

    def test_the_network_learns_which_samples_it_is_asked_about(self) -> None:
        seen: list[list[int]] = []

        def predict(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            seen.append(rows.tolist())
            return x

        invert(predict, PROCESS, X0.expand(3, 2), torch.tensor([1, 201, 101]), InversionSettings(10))
        assert seen == [[0, 1, 2], [1, 2], [1]]

    def test_half_precision_latents_are_inverted_in_float32(self) -> None:
        inverted, _ = toy([350], X0.half())
        assert (inverted.latents.dtype, inverted.noise.dtype) == (torch.float32, torch.float32)
        torch.testing.assert_close(inverted.latents.double(), toy([350])[0].latents, rtol=0, atol=1e-5)

    def test_nothing_that_comes_back_carries_a_gradient(self) -> None:
        weight = torch.ones((), dtype=torch.float64, requires_grad=True)
        inverted = invert(lambda x, t, rows: weight * x, PROCESS, X0, torch.tensor([350]), InversionSettings(10))
        assert not inverted.latents.requires_grad
        assert not inverted.noise.requires_grad


class TestStochastic:
    STEPS = ((-99, 1, 0.002064832017), (1, 101, 0.004098418662), (101, 201, 0.02609568708), (301, 401, 0.04480899881),
             (801, 901, 0.07763321643))  # fmt: skip

    @pytest.mark.parametrize(("source", "end", "std"), STEPS)
    def test_a_tenth_of_the_posterior_deviation_is_the_published_one(self, source: int, end: int, std: float) -> None:
        deviation = posterior_std(PROCESS, torch.tensor([end]), torch.tensor([source]))
        assert 0.1 * deviation.item() == pytest.approx(std, rel=1e-9)

    @pytest.mark.parametrize(("source", "end", "std"), STEPS)
    def test_noise_enters_a_step_with_the_published_deviation(self, source: int, end: int, std: float) -> None:
        last = (end - 1) // 100

        def noise(step: int) -> Tensor:
            return torch.ones(1, 2, dtype=torch.float64) if step == last else torch.zeros(1, 2, dtype=torch.float64)

        moved = toy([end], eta=0.1, noise=noise)[0].latents - toy([end])[0].latents
        assert moved[0].tolist() == pytest.approx([std, std], rel=1e-7)

    def test_noise_without_a_source_is_refused(self) -> None:
        with pytest.raises(ValueError, match="needs noise"):
            toy([350], eta=0.1)


def sample_back(
    process: ForwardProcess, network: Callable[[Tensor, Tensor], Tensor], x: Tensor, times: list[int]
) -> Tensor:
    for t, previous in itertools.pairwise(times):
        now, then = torch.tensor([t]), torch.tensor([previous])
        x = process.transition(x, network(x, now), now, then, eta=0.0).mean
    return x


class TestRoundTrip:
    @staticmethod
    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) * (0.3 + 0.001 * t.double())

    def error(self, steps: int, renoise: Renoise) -> float:
        stride = 1000 // steps
        top = 1 + 400 // stride * stride
        inverted = invert(
            lambda x, t, rows: self.network(x, t),
            PROCESS,
            X0,
            torch.tensor([top]),
            InversionSettings(steps, renoise=renoise),
        )
        times = [*range(top, 0, -stride), 0]
        return (sample_back(PROCESS, self.network, inverted.latents, times) - X0).abs().max().item()

    def test_sampling_undoes_inversion_the_better_the_finer_the_grid(self) -> None:
        coarse, middle, fine = (self.error(steps, "none") for steps in (10, 50, 250))
        assert fine < middle / 3 < coarse / 9
        assert fine < 0.02

    @pytest.mark.slow  # the same as above, with a real network
    def test_more_steps_bring_pictures_of_the_tiny_world_back_better(self) -> None:
        model = TINY.family.load(TINY.source, device=torch.device("cpu"))
        x0, captions = pictures(model, 2)
        trips = [round_trip(model, x0, captions, steps, "none") for steps in (10, 20, 50)]
        assert trips[0].latents > trips[1].latents > trips[2].latents > 0
        assert trips[0].pixels > trips[1].pixels > trips[2].pixels > 0

    def test_one_refinement_brings_sampling_closer_to_the_start(self) -> None:
        assert self.error(10, "next") < 0.7 * self.error(10, "none")

    def test_velocity_inverts_as_noise_prediction_does(self) -> None:
        velocity = build_forward_process({**SD, "prediction_type": "v_prediction"})

        def predict(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            noise = self.network(x, t)
            return (noise - velocity.sigma(t, x) * x) / velocity.alpha(t, x)

        assert isinstance(PROCESS, EpsilonProcess)
        one = invert(predict, velocity, X0, torch.tensor([350]), InversionSettings(10, renoise="next"))
        other = invert(
            lambda x, t, rows: self.network(x, t),
            PROCESS,
            X0,
            torch.tensor([350]),
            InversionSettings(10, renoise="next"),
        )
        torch.testing.assert_close(one.latents, other.latents, rtol=0, atol=1e-12)

    def test_a_flow_with_one_velocity_everywhere_is_inverted_exactly(self) -> None:
        flow = build_forward_process({"num_train_timesteps": 1000, "shift": 3.0})
        data, noise = X0, torch.tensor([[-0.3, 0.8]], dtype=torch.float64)
        start = flow.add_noise(data, noise, torch.tensor([0]))
        inverted = invert(
            lambda x, t, rows: (noise - data).expand_as(x),
            flow,
            start,
            torch.tensor([350]),
            InversionSettings(10, "exact"),
        )
        expected = flow.add_noise(data, noise, torch.tensor([350]))
        torch.testing.assert_close(inverted.latents, expected, rtol=0, atol=1e-12)
