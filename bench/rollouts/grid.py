"""The noise levels that a rollout steps through, the cleanest first."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.models.family import ModelFamily
from bench.models.forward_process import FLOW_SCHEDULER, FlowProcess, ForwardProcess
from bench.models.sampling import build_scheduler

ROUNDING = 1e-6
"""How far from 1 the noisiest level of a flow may be by rounding: diffusers' is off by up to 1.2e-7, for one shift in forty.  A rule that
divides by 1 minus the level would take that for noise, and a level above 1 is past the last training time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """S + 1 noise levels for S sampling steps: level S is where sampling starts, level 0 is where it ends.

    Attributes:
        process: the model's forward process on these levels alone; its time k is level k.
        times: what the network is called with at each level, (S + 1,): training times, int64, or network times, floating point.
    """

    process: ForwardProcess
    times: Tensor

    @property
    def steps(self) -> int:
        """S, the number of steps from pure noise to an image."""
        return len(self.times) - 1

    def at(self, level: Tensor) -> Tensor:
        """What the network is called with at levels (B,), on their device."""
        return self.times[level.cpu()].to(level.device)

    def training_times(self, level: Tensor) -> Tensor:
        """Times at levels (B,), for diagnostics: of T training times, or of a flow's sigma in T parts, int64, (B,)."""
        times = self.at(level)
        return (times.ceil() - 1).clamp(min=0).long() if times.is_floating_point() else times


def levels_of(process: ForwardProcess, alpha: Tensor, sigma: Tensor) -> ForwardProcess:
    """A forward process of the same kind on other levels; ``alpha`` and ``sigma`` are float64, (S + 1,), the cleanest first."""
    return type(process)(alpha, sigma)


def strided_grid(process: ForwardProcess, steps: int) -> Grid:
    """Every T/S-th training time from the last one down: T - 1, T - 1 - T/S, ..., rounded; level 0 is the first training time.

    Diffusers calls this spacing ``trailing``, and rounds alike.

    Raises:
        UserError: there are more steps than training times.
    """
    trained = process.train_timesteps
    if steps > trained:
        raise UserError(f"{steps} sampling steps are more than the {trained} training times of the model; use fewer")
    spaced = torch.from_numpy(np.arange(trained, 0, -trained / steps)[:steps]).round().long().flip(0) - 1
    times = torch.cat([torch.zeros(1, dtype=torch.int64), spaced])
    like = torch.zeros((), dtype=torch.float64)
    levels = levels_of(process, process.alpha(times, like).flatten(), process.sigma(times, like).flatten())
    return Grid(levels, times)


def evaluation_grid(model: ModelFamily, steps: int) -> Grid:
    """The levels of diffusers' DDIM or flow-matching Euler sampler with the model's own schedule, at its own resolution.

    A rollout on them without noise is an evaluation image under that scheduler.

    Raises:
        UserError: the scheduler cannot take so many steps, steps to other levels than those that it calls the network at, or clips
            the predicted image, which has no density.
    """
    flow, side = isinstance(model.process, FlowProcess), model.resolution
    settings = model.generation.model_copy(
        update={"scheduler": FLOW_SCHEDULER if flow else "DDIMScheduler", "steps": steps, "height": side, "width": side}
    )
    scheduler = build_scheduler(settings, model)
    if flow:
        sigma = scheduler.sigmas.double().flip(0)
        if abs(sigma[-1] - 1) < ROUNDING:
            sigma[-1] = 1
        return Grid(levels_of(model.process, 1 - sigma, sigma), (sigma * model.process.train_timesteps).float())
    return _ddim_grid(model, scheduler)


def _ddim_grid(model: ModelFamily, scheduler: Any) -> Grid:
    for name in ("clip_sample", "thresholding"):
        if scheduler.config.get(name, False):
            raise UserError(
                f"the scheduler's {name} changes predicted images, so that a step has no density; use a model whose "
                f"scheduler has {name}=false"
            )
    times = torch.cat([torch.zeros(1, dtype=torch.int64), scheduler.timesteps.long().flip(0)])
    like = torch.zeros((), dtype=torch.float64)
    process = model.process
    alpha, sigma = process.alpha(times, like).flatten(), process.sigma(times, like).flatten()
    # Diffusers' DDIM goes down by a fixed number of times, whatever the next one is; below 0 is the image.
    stride = process.train_timesteps // (len(times) - 1)
    if not torch.equal((times[1:] - stride).clamp(min=0), times[:-1]):
        raise UserError(
            f"DDIM with {len(times) - 1} steps and timestep_spacing={scheduler.config.timestep_spacing} does not step to the times at "
            "which it calls the network; use a model whose scheduler has timestep_spacing=leading, or trailing and a number of steps that "
            f"divides {process.train_timesteps}"
        )
    if scheduler.config.set_alpha_to_one:
        alpha[0], sigma[0] = 1, 0
    return Grid(levels_of(process, alpha, sigma), times)
