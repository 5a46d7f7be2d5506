"""The optimizers and learning-rate schedules of published recipes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from bench.errors import UserError, require

if TYPE_CHECKING:
    from bench.algorithm import TrainingSettings

Parameters = Sequence[nn.Parameter]


def runs_anywhere(device: torch.device) -> None:
    """Of an optimizer that needs nothing special."""


@dataclasses.dataclass(frozen=True, slots=True)
class OptimizerKind:
    """One optimizer.

    Attributes:
        build: makes it of parameters, learning rate and weight decay.
        elementwise: whether it treats every element of a weight alone, and so can work on a part of one.
        refuse: raises a `UserError` when it cannot work on a device.
    """

    build: Callable[[Parameters, float, float], torch.optim.Optimizer]
    elementwise: bool
    refuse: Callable[[torch.device], None] = runs_anywhere


def adamw(parameters: Parameters, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW, in one kernel on CUDA."""
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused)


def adamw_8bit(parameters: Parameters, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with moments of 8 bits; Dettmers et al. 2022, arXiv 2110.02861."""
    module = require("bitsandbytes.optim", "optimizer=adamw-8bit", extra="eight-bit")
    optimizer: torch.optim.Optimizer = module.AdamW8bit(parameters, lr=learning_rate, weight_decay=weight_decay)
    return optimizer


def _refuse_8bit(device: torch.device) -> None:
    if device.type != "cuda":
        raise UserError("optimizer=adamw-8bit runs on CUDA only; give --set optimizer=adamw")
    require("bitsandbytes", "optimizer=adamw-8bit", extra="eight-bit")


def adafactor(parameters: Parameters, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adafactor with the given rate, without momentum, as the released SDXL launchers have it; arXiv 1804.04235."""
    from transformers import Adafactor

    optimizer: torch.optim.Optimizer = Adafactor(
        parameters, lr=learning_rate, weight_decay=weight_decay, scale_parameter=False, relative_step=False
    )
    return optimizer


OPTIMIZERS: Mapping[str, OptimizerKind] = {
    "adamw": OptimizerKind(adamw, elementwise=True),
    "adamw-8bit": OptimizerKind(adamw_8bit, elementwise=False, refuse=_refuse_8bit),
    "adafactor": OptimizerKind(adafactor, elementwise=False),
}


def known_optimizer(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: there is no optimizer of that name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"there are {', '.join(OPTIMIZERS)}")
    return name


def rate_at(settings: TrainingSettings, step: int) -> float:
    """The learning rate of optimizer step ``step`` (0-based): linear warm-up, then constant, or half a cosine that nears 0."""
    if step < settings.warmup or settings.schedule == "constant":
        return settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup))
    gone = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * gone))
