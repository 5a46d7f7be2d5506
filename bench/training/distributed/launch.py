"""The processes and the sharding that ``accelerate launch`` was configured with."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import patch_environment

from bench.core import launched
from bench.core.errors import UserError
from bench.core.files import read_json
from bench.core.precision import full_precision
from bench.core.progress import say
from bench.core.signs import LONGEST_WORK
from bench.training.distributed.strategy import ParallelStrategy, Replicated

WHOLE_WEIGHTS = {"shard_grad_op", "2", "_hybrid_shard_zero2", "5"}
"""FSDP sharding strategies, by name and number, that keep the weights gathered between forward and backward."""


OFFLOAD = "offload to CPU or disk is not supported; shard over more processes instead"


class Split(enum.Enum):
    """What is sharded over the processes."""

    NOTHING = enum.auto()
    GRADIENTS = enum.auto()
    """Gradients and the optimizer's moments: ZeRO stage 2 (Rajbhandari et al. 2020, arXiv 1910.02054)."""
    WEIGHTS = enum.auto()
    """The weights as well: ZeRO stage 3."""


def choose_strategy(accelerator: Accelerator) -> ParallelStrategy:
    """The strategy that the launcher was configured with: sharded weights or gradients, otherwise everything replicated.

    Raises:
        UserError: the launcher was configured with something that is not supported.
    """
    split = asked_split()
    if split is Split.NOTHING or accelerator.num_processes == 1:
        return Replicated(accelerator)
    from bench.training.distributed.sharded import Sharded

    return Sharded(accelerator, reshard_after_forward=split is Split.WEIGHTS)


def connect() -> Accelerator:
    """The processes that ``accelerate launch`` started, or this one alone; from now on float32 arithmetic is exact (no TF32).

    Raises:
        UserError: the launcher was configured with something that is not supported.
    """
    asked_split()
    full_precision()
    launched.join()
    # The watch of the processes names who is awaited, and ends the wait; this only backs it up.  It is not what processes wait
    # with while the main process prepares the data, possibly for days: see `bench.core.launched.until_main`.
    patience = InitProcessGroupKwargs(timeout=dt.timedelta(seconds=LONGEST_WORK + 600))
    # Sharding is done by this project: accelerate's own FSDP handles neither CPUs nor two networks, and DeepSpeed's engine
    # handles only one network.
    with patch_environment(ACCELERATE_USE_FSDP="false", ACCELERATE_USE_DEEPSPEED="false"):
        accelerator = Together(cpu=not torch.cuda.is_available(), kwargs_handlers=[patience])
    launched.join()  # MPI: accelerate has found the address only now
    if accelerator.num_processes > 1 and not launched.joined():
        raise UserError("the processes have no address to meet at; start them with accelerate launch or torchrun")
    _say_how_many(accelerator.num_processes)
    return accelerator


class Together(Accelerator):  # type: ignore[misc]  # accelerate has no types
    """The processes, each of which notes where it needs the others; see `bench.core.launched.meet`."""

    def reduce(self, *args: Any, **kwargs: Any) -> Any:
        """See `accelerate.Accelerator.reduce`."""
        launched.meet()
        return super().reduce(*args, **kwargs)

    def gather(self, *args: Any, **kwargs: Any) -> Any:
        """See `accelerate.Accelerator.gather`."""
        launched.meet()
        return super().gather(*args, **kwargs)

    def wait_for_everyone(self) -> None:
        """See `accelerate.Accelerator.wait_for_everyone`."""
        launched.meet()
        super().wait_for_everyone()


@functools.cache
def _say_how_many(processes: int) -> None:
    if processes > 1:
        say(f"{processes} processes share the work")
    # accelerate sets the address for several processes, and then starts one where it finds no GPUs and no --multi_gpu
    elif "ACCELERATE_USE_CPU" in os.environ and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        say(
            "note: accelerate launch was asked for several processes and started one; without GPUs, add --multi_gpu and leave "
            "--cpu out"
        )


def check_precision(precision: str) -> None:
    """Refuse a launcher that was told another precision than training uses, which would otherwise be ignored.

    Args:
        precision: of the training settings, ``fp32`` or ``bf16``.

    Raises:
        UserError: ``accelerate launch --mixed_precision``, or accelerate's configuration file, says something else.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked not in ("no", precision):
        raise UserError(
            f"accelerate was configured with mixed precision {asked}, but training uses {precision}; leave --mixed_precision "
            "out and use --set precision=bf16"
        )


def asked_split() -> Split:
    """What ``accelerate launch`` was told to shard, by ``--use_fsdp`` or ``--use_deepspeed``.

    Raises:
        UserError: a ZeRO stage or an offload that is not supported.
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
        raise UserError(f"ZeRO stage {stage} is not supported; use --zero_stage 2 or 3")
    return stages[stage]


def _zero_of(file: str | None) -> dict[str, Any]:
    """The ``zero_optimization`` section of a DeepSpeed configuration file."""
    if file is None:
        return {}
    try:
        zero: dict[str, Any] = read_json(Path(file)).get("zero_optimization") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"the DeepSpeed configuration file {file} cannot be read ({error}); use --zero_stage 2 instead"
        ) from error
    return zero


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"
