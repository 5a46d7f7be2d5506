"""The forward process of a diffusion or flow model, one object per parametrisation.

Every process here is Gaussian: ``x_t = alpha(t) * x_0 + sigma(t) * noise``.  The parametrisations differ in what the
network predicts; everything else is written once, in terms of `to_x0` and `to_epsilon`.  Schedules are kept in float64 and
used in the dtype of the latents, at least float32.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.core.errors import UserError

FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
"""The diffusers scheduler that samples flows here."""
FLOW_PREDICTION = "flow_prediction"
"""The ``prediction_type`` of a flow in diffusers' schedulers for UNets, such as UniPC."""
MOST_TIMES = 1_000_000
"""The largest number of training times; a schedule of more would only fill the memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Transition:
    """One stochastic sampling step, a Gaussian: ``mean`` has the latents' shape, ``std`` is (B,)."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """The latents that standard normal noise of their shape leads to."""
        return self.mean + expand(self.std, self.mean) * noise

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log density of ``latents``, **mean** over all non-batch elements; at least float32, shape (B,)."""
        std = expand(self.std, latents)
        density = -((latents - self.mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
        return density.to(torch.promote_types(density.dtype, torch.float32)).flatten(1).mean(1)


class ForwardProcess(abc.ABC):
    """A Gaussian forward process with discrete times, ``x_t = alpha(t) x_0 + sigma(t) noise``.

    Where a method takes latents and times: latents and predictions are (B, ...), of any floating dtype; times are int64, (B,).
    Results have the latents' shape and the dtype that PyTorch promotes the arguments and the schedule (at least float32) to.
    Sources: Ho et al. 2020, arXiv 2006.11239 (epsilon); Salimans and Ho 2022, arXiv 2202.00512 (v); Lipman et al. 2023,
    arXiv 2210.02747 (flow).

    Args:
        alpha: factor of ``x_0`` at t = 0, 1, ...; float64, shape (T,).
        sigma: factor of the noise at the same times; float64, shape (T,).
    """

    prediction_type: ClassVar[str]

    def __init__(self, alpha: Tensor, sigma: Tensor) -> None:
        self._alpha, self._sigma = alpha.double(), sigma.double()

    @property
    def train_timesteps(self) -> int:
        """T, the number of training times; t is in 0 ... T-1."""
        return len(self._alpha)

    def alpha(self, t: Tensor, like: Tensor) -> Tensor:
        """Factor of ``x_0`` at times ``t`` (B,), shaped (B, 1, ...) to multiply ``like``; times below 0 count as 0."""
        return self._at(self._alpha, t, like)

    def sigma(self, t: Tensor, like: Tensor) -> Tensor:
        """Factor of the noise at times ``t`` (B,), shaped to multiply ``like``; times below 0 count as 0."""
        return self._at(self._sigma, t, like)

    def timesteps(self, uniform: Tensor) -> Tensor:
        """Map uniform draws in [0, 1) of shape (B,) to training times; int64, shape (B,)."""
        return (uniform * self.train_timesteps).long().clamp(max=self.train_timesteps - 1)

    def network_times(self, t: Tensor) -> Tensor:
        """The network's time input for training times ``t`` (B,), in the units of the diffusers schedulers; (B,).

        Times in floating point are between training times, in these units already, and come back as they are.
        """
        return t

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``x_t`` for clean latents and noise of shape (B, ...), times (B,)."""
        return self.alpha(t, x0) * x0 + self.sigma(t, x0) * noise

    def implied_noise(self, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """The noise that connects ``x_0`` with ``x_t`` (tau in SmPO and InPO); shape (B, ...).  Times must have noise."""
        return (xt - self.alpha(t, xt) * x0) / self.sigma(t, xt)

    @abc.abstractmethod
    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict; shape (B, ...)."""

    @abc.abstractmethod
    def to_x0(self, xt: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The clean latents that a prediction implies; shape (B, ...)."""

    @abc.abstractmethod
    def to_epsilon(self, xt: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The noise that a prediction implies; shape (B, ...)."""

    def transition(self, xt: Tensor, prediction: Tensor, t: Tensor, previous: Tensor, *, eta: float) -> Transition:
        """One DDIM sampling step (Song et al. 2021, eq. 12 and 16).

        Args:
            xt: latents at the times ``t``, (B, ...).
            prediction: the network's, same shape.
            t: times that the step begins at, int64, (B,).
            previous: times that it ends at, int64, (B,).
            eta: share of the DDPM variance; 0 is deterministic (then ``std`` is 0).
        """
        x0, noise = self.to_x0(xt, prediction, t), self.to_epsilon(xt, prediction, t)
        alpha, sigma = self.alpha(t, xt), self.sigma(t, xt)
        alpha_to, sigma_to = self.alpha(previous, xt), self.sigma(previous, xt)
        std = eta * (sigma_to / sigma) * (1 - (alpha / alpha_to) ** 2).clamp(min=0).sqrt()
        mean = alpha_to * x0 + (sigma_to**2 - std**2).clamp(min=0).sqrt() * noise
        return Transition(mean, std.flatten())

    @staticmethod
    def _at(schedule: Tensor, t: Tensor, like: Tensor) -> Tensor:
        values = schedule[t.cpu().clamp(min=0)]
        dtype = torch.promote_types(like.dtype, torch.float32)
        return expand(values.to(device=like.device, dtype=dtype), like)


class EpsilonProcess(ForwardProcess):
    """The network predicts the noise (DDPM, SD1.5, SDXL)."""

    prediction_type = "epsilon"

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise

    def to_x0(self, xt: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        return (xt - self.sigma(t, xt) * prediction) / self.alpha(t, xt)

    def to_epsilon(self, xt: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        return prediction


class VelocityProcess(ForwardProcess):
    """The network predicts ``v = alpha * noise - sigma * x_0`` (SD2.x; Salimans and Ho 2022)."""

    prediction_type = "v_prediction"

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.alpha(t, x0) * noise - self.sigma(t, x0) * x0

    def to_x0(self, xt: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        return self.alpha(t, xt) * xt - self.sigma(t, xt) * prediction

    def to_epsilon(self, xt: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        return self.sigma(t, xt) * xt + self.alpha(t, xt) * prediction


class FlowProcess(ForwardProcess):
    """The network predicts ``noise - x_0`` along ``x_t = (1 - sigma) x_0 + sigma noise`` (SD3, FLUX, some UNets; Lipman et al. 2023)."""

    prediction_type = "flow"

    def network_times(self, t: Tensor) -> Tensor:
        """Sigma on a scale of 0 to T, float32: a shifted schedule is not linear in ``t``; times below 0 count as 0."""
        if t.is_floating_point():
            return t
        return (self._sigma[t.cpu().clamp(min=0)] * self.train_timesteps).float().to(t.device)

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x0

    def to_x0(self, xt: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        return xt - self.sigma(t, xt) * prediction

    def to_epsilon(self, xt: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        return xt + self.alpha(t, xt) * prediction


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Reshape per-sample values (B,) to (B, 1, ...), so that they multiply ``like`` (B, ...); dtype and device stay."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def build_forward_process(config: Mapping[str, Any], tokens: int | None = None) -> ForwardProcess:
    """The process that a diffusers scheduler configuration describes.

    Args:
        tokens: number of image tokens; needed if the shift of a flow depends on the resolution.

    Raises:
        UserError: the configuration names an unsupported schedule or prediction type.
    """
    steps = int(config.get("num_train_timesteps", 1000))
    if not 0 < steps <= MOST_TIMES:
        raise UserError(f"the scheduler's num_train_timesteps {steps} is not possible; it is 1000 for most models")
    _check_sigmas(config)
    if "shift" in config or config.get("prediction_type") == FLOW_PREDICTION:
        shift = flow_shift(config, tokens)
        sigma = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
        return FlowProcess(1 - sigma, sigma)
    abar = torch.cumprod(1 - _betas(config, steps), dim=0)
    prediction = config.get("prediction_type", "epsilon")
    if config.get("rescale_betas_zero_snr"):
        if prediction != VelocityProcess.prediction_type:
            raise UserError(
                f"the scheduler combines rescale_betas_zero_snr with prediction_type {prediction!r}: at zero signal-to-noise "
                "ratio only v_prediction carries information about the image; change one of the two"
            )
        abar = _zero_terminal_snr(abar)
    for kind in (EpsilonProcess, VelocityProcess):
        if kind.prediction_type == prediction:
            return kind(abar.sqrt(), (1 - abar).sqrt())
    raise UserError(
        f"the scheduler's prediction_type {prediction!r} is not supported: use epsilon, v_prediction or flow_prediction"
    )


def _check_sigmas(config: Mapping[str, Any]) -> None:
    """Raise a `UserError` if the scheduler of a UNet states what is predicted and the sigmas of another kind of model."""
    flow, sigmas = config.get("prediction_type") == FLOW_PREDICTION, bool(config.get("use_flow_sigmas"))
    if flow != sigmas:
        raise UserError(
            f"the scheduler combines prediction_type {config.get('prediction_type')!r} with use_flow_sigmas={str(sigmas).lower()}: a flow "
            f"has {FLOW_PREDICTION} and true, any other model neither; change one of the two"
        )


def flow_scheduler_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a flow's scheduler for `FLOW_SCHEDULER`; of another class, its number of times and its shift."""
    if "shift" in config:
        return dict(config)
    return {"num_train_timesteps": config.get("num_train_timesteps", 1000), "shift": config.get("flow_shift", 1.0)}


def flow_shift(config: Mapping[str, Any], tokens: int | None) -> float:
    """The factor by which a flow's schedule is shifted towards noise, at a resolution of ``tokens`` image tokens.

    Raises:
        UserError: the configuration inverts its sigmas, or names an unsupported shift.
    """
    if config.get("invert_sigmas"):
        raise UserError("the scheduler's invert_sigmas is not supported: use a model whose sigmas decrease")
    if not config.get("use_dynamic_shifting"):
        return float(flow_scheduler_config(config)["shift"])
    if "base_shift" not in config:
        raise UserError(
            f"the scheduler's use_dynamic_shifting is not supported for {config.get('_class_name', 'its class')}; set it to false"
        )
    if tokens is None:
        raise ValueError("a resolution-dependent shift needs the number of image tokens")
    match config.get("time_shift_type", "exponential"):
        case "exponential":
            return math.exp(shift_exponent(config, tokens))
        case "linear":
            return shift_exponent(config, tokens)
        case other:
            raise UserError(f"the scheduler's time_shift_type {other!r} is not supported: use exponential or linear")


def shift_exponent(config: Mapping[str, Any], tokens: int) -> float:
    """``mu`` of a resolution-dependent shift: linear in the number of image tokens (Black Forest Labs 2024, FLUX.1)."""
    few, many = int(config["base_image_seq_len"]), int(config["max_image_seq_len"])
    low, high = float(config["base_shift"]), float(config["max_shift"])
    return low + (high - low) * (tokens - few) / (many - few)


def _zero_terminal_snr(abar: Tensor) -> Tensor:
    """Shift and scale the signal so that the last time is pure noise and the first is unchanged (Lin et al. 2023, algorithm 1)."""
    alpha = abar.sqrt()
    rescaled: Tensor = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return rescaled**2


def _betas(config: Mapping[str, Any], steps: int) -> Tensor:
    missing = [name for name in ("beta_start", "beta_end", "beta_schedule") if name not in config]
    if missing:
        raise UserError(
            f"the scheduler {config.get('_class_name', '')} has no {missing[0]}: use a model with a DDPM or flow schedule"
        )
    if config.get("trained_betas") is not None:
        raise UserError("the scheduler's trained_betas are not supported: use a model with a named beta_schedule")
    start, end = float(config["beta_start"]), float(config["beta_end"])
    match config["beta_schedule"]:
        case "scaled_linear":
            return torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64) ** 2
        case "linear":
            return torch.linspace(start, end, steps, dtype=torch.float64)
        case other:
            raise UserError(f"the scheduler's beta_schedule {other!r} is not supported: use scaled_linear or linear")
