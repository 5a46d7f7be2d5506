"""What ``accelerate launch`` asks for."""

from __future__ import annotations

import datetime as dt
import enum
import json
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import patch_environment

from bench.core.errors import UserError
from bench.core.precision import full_precision
from bench.training.distributed.strategy import ParallelStrategy, Replicated

WHOLE_WEIGHTS = {"shard_grad_op", "2", "_hybrid_shard_zero2", "5"}
"""Sharding strategies of FSDP, by name and number, that keep the weights whole between forward and backward."""


OFFLOAD = "offload to other memory is not supported; split over more processes instead"


class Split(enum.Enum):
    """What the processes split between them."""

    NOTHING = enum.auto()
    GRADIENTS = enum.auto()
    """Gradients and the optimizer's moments: ZeRO stage 2 (Rajbhandari et al. 2020, arXiv 1910.02054)."""
    WEIGHTS = enum.auto()
    """The weights too: ZeRO stage 3."""


def choose_strategy(accelerator: Accelerator) -> ParallelStrategy:
    """What the launcher asks for: split weights or gradients, else everything whole.

    Raises:
        UserError: it asks for something that is not there.
    """
    split = asked_split()
    if split is Split.NOTHING or accelerator.num_processes == 1:
        return Replicated(accelerator)
    from bench.training.distributed.sharded import Sharded

    return Sharded(accelerator, reshard_after_forward=split is Split.WEIGHTS)


def connect() -> Accelerator:
    """The processes that ``accelerate launch`` started, or this one alone; arithmetic in float32 is exact from now on.

    Raises:
        UserError: the launcher asks for something that is not there.
    """
    asked_split()
    full_precision()
    # While the main process prepares the data, all others wait.
    patience = InitProcessGroupKwargs(timeout=dt.timedelta(days=7))
    # The split is made here: accelerate's own FSDP takes no CPUs and one network alone, DeepSpeed's engine one network alone.
    with patch_environment(ACCELERATE_USE_FSDP="false", ACCELERATE_USE_DEEPSPEED="false"):
        return Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[patience])


def asked_split() -> Split:
    """What ``accelerate launch`` was told to split, by ``--use_fsdp`` or ``--use_deepspeed``.

    Raises:
        UserError: a stage or an offload of DeepSpeed that is not there.
    """
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        return _deepspeed_split()
    if not _is_on("ACCELERATE_USE_FSDP"):
        return Split.NOTHING
    if _is_on("FSDP_OFFLOAD_PARAMS"):
        raise UserError(OFFLOAD)
    strategies = (os.environ.get(f"FSDP_{name}", "").lower() for name in ("RESHARD_AFTER_FORWARD", "SHARDING_STRATEGY"))
    keeps_weights = any(strategy in WHOLE_WEIGHTS | {"false"} for strategy in strategies)
    return Split.GRADIENTS if keeps_weights else Split.WEIGHTS


def _deepspeed_split() -> Split:
    zero = _zero_of(os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"))
    stage = str(zero.get("stage", os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")))
    offloads = [(zero.get(f"offload_{part}") or {}).get("device", "none") for part in ("optimizer", "param")]
    offloads += [
        os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{part}_DEVICE", "none") for part in ("OPTIMIZER", "PARAM")
    ]
    if set(offloads) != {"none"}:
        raise UserError(OFFLOAD)
    stages = {"0": Split.NOTHING, "2": Split.GRADIENTS, "3": Split.WEIGHTS}
    if stage not in stages:
        raise UserError(f"ZeRO stage {stage} is not supported; give --zero_stage 2, or 3")
    return stages[stage]


def _zero_of(file: str | None) -> dict[str, Any]:
    """What a configuration file of DeepSpeed says of ZeRO."""
    if file is None:
        return {}
    try:
        zero: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8")).get("zero_optimization") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"DeepSpeed's configuration file {file} cannot be read ({error}); give --zero_stage 2 instead"
        ) from error
    return zero


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"
