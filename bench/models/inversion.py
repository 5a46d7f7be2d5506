"""Deterministic inversion: from clean latents along the model's own ODE to noisy latents at a given time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from bench.models.forward_process import ForwardProcess, expand

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``predict(latents (b, ...), timesteps (b,), rows (b,))``: ``rows`` says which samples of the batch these are."""

Endpoint = Literal["grid", "exact", "official"]
"""Where `invert` ends: at the first grid time >= the requested one, exactly at it, or as in the released code."""
Renoise = Literal["none", "next", "same"]
"""Whether `invert` refines each step once (ReNoise), with the network called at the next or at the same time."""


@dataclasses.dataclass(frozen=True, slots=True)
class InversionSettings:
    """How `invert` goes from clean latents to noisy ones.

    The grid is diffusers' ``leading`` one with offset 1: 1, 1 + T/n, 1 + 2T/n, ... for n ``steps``.  Where n does not divide T, the
    stride is rounded down and the grid goes on to the last time below T: all of them are reached, in more than n steps.

    Attributes:
        steps: n, the steps of the grid over all T training times.
        endpoint: where a sample ends.  ``grid``: at the first grid time >= t (the last one for later t), and that is the time
            returned.  ``exact``: the last step is shortened to end at t.  ``official``: as the released SmPO and InPO code
            does, for replication: on the grid, but reported as t, with a first network call at a negative time.
        renoise: ``none`` is DDIM (Song et al. 2021, arXiv 2010.02502).  ``next`` averages the noise predicted at the start of a
            step with the one predicted at its end (ReNoise, Garibi et al. 2024, arXiv 2403.14602, one refinement); ``same`` makes
            the second prediction with the starting time, as the released SmPO code does.
        eta: noise added after each step, as a share of the DDPM standard deviation (InPO: 0.1).
    """

    steps: int
    endpoint: Endpoint = "grid"
    renoise: Renoise = "none"
    eta: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Inversion:
    """What `invert` returns; nothing here carries a gradient.

    Attributes:
        latents: noisy latents, (B, ...), at least float32.
        timesteps: the times they are at, int64, (B,).
        noise: the noise that connects them with ``x_0``, of the latents' shape and dtype; training targets are computed from it.
    """

    latents: Tensor
    timesteps: Tensor
    noise: Tensor


@torch.no_grad()
def invert(
    predict: Predict,
    process: ForwardProcess,
    x0: Tensor,
    timesteps: Tensor,
    settings: InversionSettings,
    *,
    noise: Callable[[int], Tensor] | None = None,
    any_rank: Callable[[bool], bool] = bool,
    dummy_forward: Callable[[], object] = lambda: None,
) -> Inversion:
    """Invert ``x_0`` up to per-sample times.  All samples advance together; those that have arrived leave the batch.

    Args:
        predict: the network, conditioned; called without gradient.
        process: the forward process that the network was trained with.
        x0: clean latents, (B, ...).
        timesteps: requested times, int64 (B,).
        settings: the steps and how each is solved.
        noise: ``noise(k)`` returns the standard normal noise (B, ...) of grid step k; needed when ``settings.eta`` > 0.
        any_rank: see `bench.Policy.any_rank`.
        dummy_forward: calls the network and drops the result, once for every call of ``predict`` that other ranks make and this one
            does not.

    Returns:
        Latents, times and noise; latents and noise in at least float32.

    Raises:
        ValueError: ``settings.eta`` is above 0 and ``noise`` is None.
    """
    if settings.eta > 0 and noise is None:
        raise ValueError("eta > 0 needs noise")
    first, stride, goal = _grid(process, timesteps, settings)
    latents = x0.to(torch.promote_types(x0.dtype, torch.float32))
    start = torch.full_like(timesteps, first - stride)
    for step in range(math.ceil((process.train_timesteps - 1 - first) / stride) + 1):
        rows = (start < goal).nonzero().flatten()
        if not any_rank(len(rows) > 0):
            break
        if len(rows) == 0:
            for _ in range(1 if settings.renoise == "none" else 2):
                dummy_forward()
            continue
        source, end = start[rows], torch.minimum(start[rows] + stride, goal[rows])
        x = _advanced(predict, process, latents[rows], rows, source, end, settings)
        if settings.eta > 0 and noise is not None:
            x = x + settings.eta * expand(posterior_std(process, end, source), x).to(x) * noise(step)[rows].to(x)
        latents = latents.index_copy(0, rows, x)
        start = start.index_copy(0, rows, end)
    reached = timesteps if settings.endpoint == "official" else goal
    return Inversion(latents, reached, process.implied_noise(x0.to(latents), latents, reached))


def _grid(process: ForwardProcess, timesteps: Tensor, settings: InversionSettings) -> tuple[int, int, Tensor]:
    """The first time of the grid, its stride, and where each sample ends, int64 (B,)."""
    stride = process.train_timesteps // settings.steps
    first = 1
    last = first + stride * ((process.train_timesteps - 1 - first) // stride)
    if settings.endpoint == "exact":
        return first, stride, timesteps.clone()
    goal = first + torch.div(timesteps - first + stride - 1, stride, rounding_mode="floor") * stride
    return first, stride, goal.clamp(first, last)


def _advanced(
    predict: Predict,
    process: ForwardProcess,
    x: Tensor,
    rows: Tensor,
    source: Tensor,
    end: Tensor,
    settings: InversionSettings,
) -> Tensor:
    """Latents of times ``source`` at the noisier times ``end``."""
    # the clean latents count as time 0: only the released code calls the network at negative times
    at = source if settings.endpoint == "official" else source.clamp(min=0)
    predicted = process.to_epsilon(x, predict(x, at, rows), at)
    if settings.renoise != "none":
        again = end if settings.renoise == "next" else at
        moved = _move(process, x, predicted, source, end)
        predicted = (predicted + process.to_epsilon(moved, predict(moved, again, rows), again)) / 2
    return _move(process, x, predicted, source, end)


def posterior_std(process: ForwardProcess, t: Tensor, previous: Tensor) -> Tensor:
    """Standard deviation of the DDPM step from ``t`` to the cleaner ``previous``; float64 on the CPU, shape (B,).

    ``sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))``; negative times count as 0.
    """
    like = torch.zeros(len(t), dtype=torch.float64)
    alpha, sigma = process.alpha(t, like), process.sigma(t, like)
    alpha_s, sigma_s = process.alpha(previous, like), process.sigma(previous, like)
    return (sigma_s / sigma) * (1 - (alpha / alpha_s) ** 2).clamp(min=0).sqrt()


def _move(process: ForwardProcess, x: Tensor, noise: Tensor, source: Tensor, end: Tensor) -> Tensor:
    x0 = (x - process.sigma(source, x) * noise) / process.alpha(source, x)
    return process.alpha(end, x) * x0 + process.sigma(end, x) * noise
