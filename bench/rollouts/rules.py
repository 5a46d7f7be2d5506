"""How a sampler gets from one noise level to the next: Gaussian transitions, one rule per kind of step.

A rule is a frozen value with one number, the strength of its noise; 0 is the deterministic step, which for flows is Euler's.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from bench.core.errors import UserError
from bench.models.forward_process import FlowProcess, ForwardProcess, Transition


@dataclasses.dataclass(frozen=True, slots=True)
class Rule(abc.ABC):
    """One kind of sampling step.

    Attributes:
        noise: strength of the step's noise, at least 0; its unit depends on the rule.
        published: the strength of the method that the rule is from.
        most: the largest strength.
        density: whether its log-probabilities are those of densities.
    """

    noise: float
    published: ClassVar[float]
    most: ClassVar[float] = math.inf
    density: ClassVar[bool] = True

    @abc.abstractmethod
    def refuse(self, process: ForwardProcess) -> None:
        """Raise a `UserError` that names another rule, if this one is not defined for a process."""

    @abc.abstractmethod
    def transition(self, xt: Tensor, prediction: Tensor, process: ForwardProcess, t: Tensor, to: Tensor) -> Transition:
        """The distribution of the next latents.

        Args:
            xt: latents, (B, ...).
            prediction: the network's raw prediction, (B, ...), guidance included.
            process: the forward process.
            t: times of ``xt``, int64, (B,).
            to: cleaner times, int64, (B,).
        """


@dataclasses.dataclass(frozen=True, slots=True)
class Ddim(Rule):
    """DDIM (Song et al. 2021, arXiv 2010.02502); ``noise`` is eta, the share of DDPM's standard deviation.

    As in DDPO (Black et al. 2024, arXiv 2305.13301).  Without noise it is the ODE step of every process, flows included.
    """

    published: ClassVar[float] = 1.0
    most: ClassVar[float] = 1.0  # with more, the latents have more noise than their level

    def refuse(self, process: ForwardProcess) -> None:
        if self.noise and isinstance(process, FlowProcess):
            raise UserError(
                "rule=ddim with noise is for models that predict noise or v; use flow-sde, dance-sde or cps"
            )

    def transition(self, xt: Tensor, prediction: Tensor, process: ForwardProcess, t: Tensor, to: Tensor) -> Transition:
        return process.transition(xt, prediction, t, to, eta=self.noise)


@dataclasses.dataclass(frozen=True, slots=True)
class FlowRule(Rule):
    """A rule for flows, ``x_s = (1 - s) x_0 + s noise``."""

    def refuse(self, process: ForwardProcess) -> None:
        if not isinstance(process, FlowProcess):
            raise UserError(
                f"flow rules are for flow models, not for one that predicts {process.prediction_type}; use rule=ddim"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class DanceSde(FlowRule):
    """The reverse SDE of a flow with constant diffusion g = ``noise`` (DanceGRPO, Xue et al. 2025, arXiv 2505.07818).

    The mean is ``x (1 + g^2 ds / (2 s)) + v (1 + g^2 (1 - s) / (2 s)) ds`` with ds < 0, the standard deviation ``g sqrt(-ds)``.
    """

    published: ClassVar[float] = 0.3

    def diffusion(self, s: Tensor, s_to: Tensor) -> Tensor:
        """The diffusion coefficient g at noise levels ``s`` on the way to ``s_to``, shaped like them."""
        return s.new_full(s.shape, self.noise)

    def transition(self, xt: Tensor, prediction: Tensor, process: ForwardProcess, t: Tensor, to: Tensor) -> Transition:
        s, s_to = process.sigma(t, xt), process.sigma(to, xt)
        g, ds = self.diffusion(s, s_to), s_to - s
        drift = g**2 / (2 * s)
        mean = xt * (1 + drift * ds) + prediction * (1 + drift * (1 - s)) * ds
        return Transition(mean, (g * (-ds).sqrt()).flatten())


@dataclasses.dataclass(frozen=True, slots=True)
class FlowSde(DanceSde):
    """The same with ``g = noise sqrt(s / (1 - s))`` (Flow-GRPO, Liu et al. 2025, arXiv 2505.05470).

    At s = 1, where that is infinite, the released code divides by 1 minus the next level instead.
    """

    published: ClassVar[float] = 0.7

    def diffusion(self, s: Tensor, s_to: Tensor) -> Tensor:
        return self.noise * (s / (1 - s_to.where(s == 1, s))).sqrt()


@dataclasses.dataclass(frozen=True, slots=True)
class UnscaledTransition(Transition):
    """A transition whose "log density" leaves out the variance and the constants, as released code of CPS does."""

    def log_prob(self, latents: Tensor) -> Tensor:
        """``-(latents - mean)^2``, mean over all non-batch elements; at least float32, (B,)."""
        return -((latents - self.mean) ** 2).flatten(1).mean(1)


@dataclasses.dataclass(frozen=True, slots=True)
class Cps(FlowRule):
    """Coefficients-preserving sampling (Wang and Yu 2025, arXiv 2509.05952); ``noise`` is a in [0, 1].

    The standard deviation is ``s_to sin(a pi / 2)``, and what it adds is taken from the predicted noise, so that the latents keep
    the noise level that the network expects.  Ratios of its log-probabilities are not ratios of densities: a clip range of
    Flow-SDE does not carry over.
    """

    published: ClassVar[float] = 0.8
    most: ClassVar[float] = 1.0  # with more, the sine falls again
    density: ClassVar[bool] = False

    def transition(self, xt: Tensor, prediction: Tensor, process: ForwardProcess, t: Tensor, to: Tensor) -> Transition:
        s_to = process.sigma(to, xt)
        std = s_to * math.sin(self.noise * math.pi / 2)
        x0, x1 = process.to_x0(xt, prediction, t), process.to_epsilon(xt, prediction, t)
        mean = process.alpha(to, xt) * x0 + (s_to**2 - std**2).clamp(min=0).sqrt() * x1
        return UnscaledTransition(mean, std.flatten())


ODE = Ddim(0.0)
"""The deterministic step of every process."""

RuleName = Literal["ddim", "flow-sde", "dance-sde", "cps"]
"""A rule in settings."""

RULES: Mapping[RuleName, type[Rule]] = {"ddim": Ddim, "flow-sde": FlowSde, "dance-sde": DanceSde, "cps": Cps}
"""The rules by the names that settings use."""


def has_density(name: RuleName | None) -> bool:
    """Whether log-probabilities by a rule are those of densities; None is the default of a process, see `find_rule`."""
    return name is None or RULES[name].density


def find_rule(name: RuleName | None, noise: float | None, process: ForwardProcess) -> Rule:
    """A rule for a process.

    Args:
        name: its name; None for ``flow-sde`` of flows and ``ddim`` of others.
        noise: its strength; None for the published one.
        process: the model's forward process.

    Raises:
        UserError: the rule is not defined for the process, or not for so much noise.
    """
    if name is None:
        name = "flow-sde" if isinstance(process, FlowProcess) else "ddim"
    rule = RULES[name](RULES[name].published if noise is None else noise)
    rule.refuse(process)
    if rule.noise > rule.most:
        raise UserError(f"noise={rule.noise:g} is too much for rule={name}; use at most {rule.most:g}")
    return rule
