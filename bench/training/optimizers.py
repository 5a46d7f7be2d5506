"""The optimizers of published recipes."""

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
"""bitsandbytes: how many 8-bit values share one scale, and how many elements a weight needs to be kept in 8 bits."""


def runs_anywhere(device: torch.device) -> None:
    """Accept every device."""


@dataclasses.dataclass(frozen=True, slots=True)
class OptimizerKind:
    """One optimizer.

    Attributes:
        build: makes the optimizer from parameters, learning rate and weight decay.
        state: bytes of optimizer state for a weight of some shape after the first step.  Plans rely on it, since they neither
            have the device nor run its kernels; a step needs little more memory, as it updates one weight after another.
        elementwise: whether it treats every element of a weight independently, and so can work on a shard.
        refuse: raises a `UserError` if it cannot work on a device.
    """

    build: Callable[[Parameters, float, float], torch.optim.Optimizer]
    state: Callable[[Sequence[int]], int]
    elementwise: bool
    refuse: Callable[[torch.device], None] = runs_anywhere


def adamw(parameters: Parameters, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW, fused on CUDA."""
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused)


def _adamw_state(shape: Sequence[int]) -> int:
    """Two moments and the step count."""
    return FLOAT * (2 * math.prod(shape) + 1)


def adamw_8bit(parameters: Parameters, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with 8-bit moments; Dettmers et al. 2022, arXiv 2110.02861."""
    module = require("bitsandbytes.optim", "optimizer=adamw-8bit", extra="eight-bit")
    optimizer: torch.optim.Optimizer = module.AdamW8bit(parameters, lr=learning_rate, weight_decay=weight_decay)
    return optimizer


def _adamw_8bit_state(shape: Sequence[int]) -> int:
    """Two moments: one byte per element plus one scale per block, or float32 for a small weight."""
    count = math.prod(shape)
    return 2 * FLOAT * count if count < LEAST else 2 * (count + FLOAT * math.ceil(count / BLOCK))


def _refuse_8bit(device: torch.device) -> None:
    if device.type != "cuda":
        raise UserError("optimizer=adamw-8bit runs on CUDA only; use --set optimizer=adamw")
    require("bitsandbytes", "optimizer=adamw-8bit", extra="eight-bit")


def adafactor(parameters: Parameters, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adafactor at a fixed learning rate, without momentum, as in the released SDXL launch scripts; arXiv 1804.04235."""
    from transformers import Adafactor

    optimizer: torch.optim.Optimizer = Adafactor(
        parameters, lr=learning_rate, weight_decay=weight_decay, scale_parameter=False, relative_step=False
    )
    return optimizer


def _adafactor_state(shape: Sequence[int]) -> int:
    """Second moments averaged over the last axis and over the one before it, or unreduced for a vector; and the weight's RMS."""
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
        raise ValueError(f"choose from {', '.join(OPTIMIZERS)}")
    return name
