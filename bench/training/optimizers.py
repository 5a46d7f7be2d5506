"""The optimizers and learning-rate schedules of published recipes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from bench.core.errors import UserError, require

Parameters = Sequence[nn.Parameter]

FLOAT = 4
"""Bytes of a float32."""
BLOCK, LEAST = 256, 4096
"""Of bitsandbytes: elements that share a scale of their 8-bit values, and the fewest of a weight that it keeps in 8 bits."""


def runs_anywhere(device: torch.device) -> None:
    """Of an optimizer that needs nothing special."""


@dataclasses.dataclass(frozen=True, slots=True)
class OptimizerKind:
    """One optimizer.

    Attributes:
        build: makes it of parameters, learning rate and weight decay.
        state: bytes that it remembers of a weight of some shape, once it has stepped; plans go by it, since they neither have
            the device nor run its kernels.  A step needs little beside: it takes one weight after the other.
        elementwise: whether it treats every element of a weight alone, and so can work on a part of one.
        refuse: raises a `UserError` when it cannot work on a device.
    """

    build: Callable[[Parameters, float, float], torch.optim.Optimizer]
    state: Callable[[Sequence[int]], int]
    elementwise: bool
    refuse: Callable[[torch.device], None] = runs_anywhere


def adamw(parameters: Parameters, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW, in one kernel on CUDA."""
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused)


def _adamw_state(shape: Sequence[int]) -> int:
    """Two moments, and the number of steps."""
    return FLOAT * (2 * math.prod(shape) + 1)


def adamw_8bit(parameters: Parameters, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with moments of 8 bits; Dettmers et al. 2022, arXiv 2110.02861."""
    module = require("bitsandbytes.optim", "optimizer=adamw-8bit", extra="eight-bit")
    optimizer: torch.optim.Optimizer = module.AdamW8bit(parameters, lr=learning_rate, weight_decay=weight_decay)
    return optimizer


def _adamw_8bit_state(shape: Sequence[int]) -> int:
    """Two moments of a byte an element with a scale for every block, or of float32 in a small weight."""
    count = math.prod(shape)
    return 2 * FLOAT * count if count < LEAST else 2 * (count + FLOAT * math.ceil(count / BLOCK))


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


def _adafactor_state(shape: Sequence[int]) -> int:
    """Means of squares over the last axis and over the one before it, or all squares of a vector; and the weight's size."""
    if len(shape) < 2:
        return FLOAT * (math.prod(shape) + 1)
    return FLOAT * (math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1] + 1)


OPTIMIZERS: Mapping[str, OptimizerKind] = {
    "adamw": OptimizerKind(adamw, _adamw_state, elementwise=True),
    "adamw-8bit": OptimizerKind(adamw_8bit, _adamw_8bit_state, elementwise=False, refuse=_refuse_8bit),
    "adafactor": OptimizerKind(adafactor, _adafactor_state, elementwise=False),
}


def known_optimizer(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: there is no optimizer of that name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"there are {', '.join(OPTIMIZERS)}")
    return name
