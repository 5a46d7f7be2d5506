"""Schedules that depend on flags or on the resolution, and what the networks are told of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from bench.core.errors import UserError
from bench.models.forward_process import FlowProcess, VelocityProcess, build_forward_process, shift_exponent

SD = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}
FLUX = {
    "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": True, "base_image_seq_len": 256,
    "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15,
}  # fmt: skip
UNET_FLOW = {
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 2.0,
}
ONE = torch.zeros(1, 1, dtype=torch.float64)


def sigma(config: dict[str, Any], t: int, tokens: int | None = None) -> float:
    return build_forward_process(config, tokens).sigma(torch.tensor([t]), ONE).item()


class TestNetworkTimes:
    def test_a_diffusion_network_is_given_the_training_time(self) -> None:
        t = torch.tensor([0, 7, 999, -99])
        assert build_forward_process(SD).network_times(t) is t

    @pytest.mark.parametrize(("t", "given"), [(0, 2.994012), (499, 750.0), (999, 1000.0), (-100, 2.994012)])
    def test_a_flow_network_is_given_the_shifted_sigma_in_thousandths(self, t: int, given: float) -> None:
        process = build_forward_process({"num_train_timesteps": 1000, "shift": 3.0})
        times = process.network_times(torch.tensor([t]))
        assert times.dtype == torch.float32
        assert times.item() == pytest.approx(given, rel=1e-6)

    def test_a_time_between_training_times_is_given_as_it_is(self) -> None:
        t = torch.tensor([750.25, 3.0])
        for config in (SD, {"num_train_timesteps": 1000, "shift": 3.0}):
            assert build_forward_process(config).network_times(t) is t

    def test_a_unet_that_was_trained_as_a_flow_is_given_the_times_of_its_own_scheduler(self) -> None:
        from diffusers import UniPCMultistepScheduler

        scheduler = UniPCMultistepScheduler(**UNET_FLOW)
        scheduler.set_timesteps(999)  # these visit our times 999 to 1
        ours = build_forward_process(scheduler.config).network_times(torch.arange(1, 1000))
        assert (ours.flip(0).long() - scheduler.timesteps).abs().max() <= 1  # diffusers cuts times to whole numbers

    def test_they_are_the_times_of_the_models_own_scheduler(self) -> None:
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        ours = build_forward_process(scheduler.config).network_times(torch.arange(1000))
        torch.testing.assert_close(ours, scheduler.timesteps.flip(0), rtol=1e-6, atol=0)


class TestResolutionDependentShift:
    @pytest.mark.parametrize(("tokens", "mu"), [(256, 0.5), (4096, 1.15), (1024, 0.63), (64, 0.4675)])
    def test_its_exponent_is_linear_in_the_tokens(self, tokens: int, mu: float) -> None:
        assert shift_exponent(FLUX, tokens) == pytest.approx(mu, rel=1e-12)

    @pytest.mark.parametrize(("tokens", "half"), [(256, 0.6224593312), (4096, 0.7595109168)])
    def test_half_way_the_noise_is_the_sigmoid_of_the_exponent(self, tokens: int, half: float) -> None:
        assert sigma(FLUX, 499, tokens) == pytest.approx(half, rel=1e-9)

    def test_the_linear_kind_takes_the_exponent_itself(self) -> None:
        assert sigma({**FLUX, "time_shift_type": "linear"}, 499, 256) == pytest.approx(1 / 3, rel=1e-12)

    def test_without_a_resolution_it_is_no_schedule(self) -> None:
        with pytest.raises(ValueError, match="number of image tokens"):
            build_forward_process(FLUX)

    def test_a_fixed_shift_ignores_the_resolution(self) -> None:
        fixed = {"num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": False}
        assert sigma(fixed, 499, 4096) == pytest.approx(0.75, rel=1e-12)
        assert isinstance(build_forward_process(fixed), FlowProcess)


class TestUNetsThatWereTrainedAsFlows:
    @pytest.mark.parametrize(
        ("changes", "half"), [({}, 2 / 3), ({"flow_shift": 1.0}, 0.5), ({"flow_shift": 3.0}, 0.75)]
    )
    def test_their_schedule_is_shifted_by_flow_shift(self, changes: dict[str, Any], half: float) -> None:
        process = build_forward_process({**UNET_FLOW, **changes})
        assert isinstance(process, FlowProcess)
        assert process.sigma(torch.tensor([499]), ONE).item() == pytest.approx(half, rel=1e-12)

    # diffusers passes tensors to NumPy in a way that NumPy 2 deprecates.
    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_a_prediction_means_what_it_means_to_diffusers(self) -> None:
        """A first-order step of diffusers' solver is on the line between the clean latents and the noise that the prediction implies."""
        from diffusers import DPMSolverMultistepScheduler

        scheduler = DPMSolverMultistepScheduler(**UNET_FLOW, solver_order=1)
        scheduler.set_timesteps(4)
        latents, predicted = torch.randn(2, 1, 4, 2, 2, generator=torch.Generator().manual_seed(0)).unbind()
        stepped = scheduler.step(predicted, scheduler.timesteps[0], latents).prev_sample
        process = build_forward_process(scheduler.config)
        sigmas = process.sigma(torch.arange(1000), torch.zeros(1000)).flatten()
        nearest, following = ((sigmas - each).abs().argmin()[None] for each in scheduler.sigmas[:2])
        clean, noise = process.to_x0(latents, predicted, nearest), process.to_epsilon(latents, predicted, nearest)
        torch.testing.assert_close(process.add_noise(clean, noise, following), stepped, rtol=0, atol=3e-3)


class TestZeroTerminalSnr:
    def test_the_last_time_is_pure_noise_the_first_stays_and_between_them_the_signal_is_stretched(self) -> None:
        process = build_forward_process({**SD, "rescale_betas_zero_snr": True})
        signal = [process.alpha(torch.tensor([t]), ONE).item() for t in (0, 500, 999)]
        assert signal[0] == pytest.approx(math.sqrt(0.99915), rel=1e-12)
        # From the published products at 500 and 999: .276332683823 and .00466009851308.
        assert signal[1] == pytest.approx(0.4909363, rel=1e-5)
        assert signal[2] == 0
        assert isinstance(process, VelocityProcess)

    def test_it_is_the_schedule_of_diffusers(self) -> None:
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler(**SD, rescale_betas_zero_snr=True)
        ours = build_forward_process(scheduler.config).alpha(torch.arange(1000), torch.zeros(1000)) ** 2
        torch.testing.assert_close(ours, scheduler.alphas_cumprod, rtol=1e-3, atol=1e-6)

    def test_it_is_refused_for_a_network_that_predicts_noise(self) -> None:
        with pytest.raises(UserError, match="only v_prediction carries information about the image"):
            build_forward_process({**SD, "prediction_type": "epsilon", "rescale_betas_zero_snr": True})


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"num_train_timesteps": 1000, "shift": 1.0, "invert_sigmas": True}, "invert_sigmas is not supported"),
        ({**FLUX, "time_shift_type": "cosine"}, "time_shift_type 'cosine' is not supported"),
        ({**SD, "trained_betas": [0.1, 0.2]}, "trained_betas are not supported"),
        ({"_class_name": "EDMEulerScheduler", "sigma_min": 0.002}, "EDMEulerScheduler has no beta_start"),
    ],
)
def test_what_is_not_known_is_refused_by_name(config: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part):
        build_forward_process(config, 256)
