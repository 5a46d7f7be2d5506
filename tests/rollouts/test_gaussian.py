"""Rollouts of a Gaussian toy, whose every step is linear: 100,000 paths have the mean and variance of the closed form.

Data are normal with mean M and variance VAR, so the best prediction is linear in ``x_t`` and so is each step.  The expectations are
computed with scalars, from the formulas of the papers, without our processes and rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.models.forward_process import EpsilonProcess, FlowProcess, VelocityProcess
from bench.rollouts.grid import Grid
from bench.rollouts.rules import Cps, DanceSde, Ddim, FlowSde, Rule
from bench.rollouts.sampler import roll_out

M, VAR, STEPS, PATHS = 0.7, 0.4, 12, 100_000
ABAR = [1 - 0.99 * (k / STEPS) ** 0.7 - 0.001 for k in range(STEPS + 1)]
SIGMA = [3 * u / (1 + 2 * u) for u in (k / STEPS for k in range(STEPS + 1))]

Line = tuple[float, float, float]
"""A step ``x -> slope x + offset + std noise``."""


def clean(alpha: float, sigma: float) -> tuple[float, float]:
    """Slope and offset of E[x_0 | x_t]."""
    gain = alpha * VAR / (alpha**2 * VAR + sigma**2)
    return gain, M - gain * alpha * M


def ddim(eta: float, k: int) -> Line:
    now, then = ABAR[k], ABAR[k - 1]
    slope, offset = clean(math.sqrt(now), math.sqrt(1 - now))
    std = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
    a, b = math.sqrt(then), math.sqrt(1 - then - std**2) / math.sqrt(1 - now)
    c = a - b * math.sqrt(now)
    return b + c * slope, c * offset, std


def velocity(s: float) -> tuple[float, float]:
    slope, offset = clean(1 - s, s)
    return (1 - slope) / s, -offset / s


def sde(g: Callable[[float, float], float], k: int) -> Line:
    s, then = SIGMA[k], SIGMA[k - 1]
    ds, (slope, offset) = then - s, velocity(s)
    drift = g(s, then) ** 2 / (2 * s)
    factor = (1 + drift * (1 - s)) * ds
    return 1 + drift * ds + factor * slope, factor * offset, g(s, then) * math.sqrt(-ds)


def cps(a: float, k: int) -> Line:
    s, then = SIGMA[k], SIGMA[k - 1]
    std, (slope, offset) = then * math.sin(a * math.pi / 2), velocity(s)
    rest = math.sqrt(then**2 - std**2)
    factor = (1 - s) * rest - s * (1 - then)
    return 1 - then + rest + factor * slope, factor * offset, std


def flow_g(s: float, then: float) -> float:
    return 0.7 * math.sqrt(s / (1 - (then if s == 1 else s)))


CASES: list[tuple[str, Rule, Callable[[int], Line]]] = [
    ("epsilon", Ddim(1.0), lambda k: ddim(1.0, k)),
    ("epsilon", Ddim(0.3), lambda k: ddim(0.3, k)),
    ("v", Ddim(1.0), lambda k: ddim(1.0, k)),
    ("v", Ddim(0.0), lambda k: ddim(0.0, k)),
    ("flow", FlowSde(0.7), lambda k: sde(flow_g, k)),
    ("flow", DanceSde(0.3), lambda k: sde(lambda s, then: 0.3, k)),
    ("flow", Cps(0.8), lambda k: cps(0.8, k)),
    ("flow", Ddim(0.0), lambda k: cps(0.0, k)),
]


def grid_of(kind: str) -> Grid:
    if kind == "flow":
        sigma = torch.tensor(SIGMA, dtype=torch.float64)
        return Grid(FlowProcess(1 - sigma, sigma), torch.arange(STEPS + 1))
    abar = torch.tensor(ABAR, dtype=torch.float64)
    process = {"epsilon": EpsilonProcess, "v": VelocityProcess}[kind]
    return Grid(process(abar.sqrt(), (1 - abar).sqrt()), torch.arange(STEPS + 1))


def best_prediction(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """What a perfectly trained network of each kind predicts for this data."""

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        k = int(level[0])
        alpha, sigma = (1 - SIGMA[k], SIGMA[k]) if kind == "flow" else (math.sqrt(ABAR[k]), math.sqrt(1 - ABAR[k]))
        slope, offset = clean(alpha, sigma)
        x0 = slope * x + offset
        noise = (x - alpha * x0) / sigma
        return {"epsilon": noise, "v": alpha * noise - sigma * x0, "flow": noise - x0}[kind]

    return denoise


@pytest.mark.parametrize(("kind", "rule", "line"), CASES, ids=[f"{kind}-{rule}" for kind, rule, _ in CASES])
def test_paths_have_the_mean_and_variance_of_the_closed_form(
    kind: str, rule: Rule, line: Callable[[int], Line]
) -> None:
    mean, variance = 0.0, 1.0
    for k in range(STEPS, 0, -1):
        slope, offset, std = line(k)
        mean, variance = slope * mean + offset, slope**2 * variance + std**2

    generator = torch.manual_seed(0)
    start = torch.randn(PATHS, 1, generator=generator, dtype=torch.float64)
    found = roll_out(
        best_prediction(kind), grid_of(kind), [rule] * STEPS, start, torch.full((PATHS,), STEPS),
        lambda _: torch.randn(PATHS, 1, generator=generator, dtype=torch.float64),
    ).final  # fmt: skip
    assert found.mean().item() == pytest.approx(mean, abs=3 * math.sqrt(variance / PATHS))
    assert found.var().item() == pytest.approx(variance, abs=3 * variance * math.sqrt(2 / PATHS))
