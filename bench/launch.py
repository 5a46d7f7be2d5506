"""What ``accelerate launch`` asks for."""

from __future__ import annotations

import datetime as dt
import os

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import patch_environment

from bench.errors import UserError
from bench.layout import Layout, Replicated
from bench.sharded import Sharded


def choose_layout(accelerator: Accelerator) -> Layout:
    """What the launcher asks for: split weights with ``accelerate launch --use_fsdp``, else whole ones."""
    if _launched_with("FSDP") and accelerator.num_processes > 1:
        return Sharded(accelerator)
    return Replicated(accelerator)


def connect() -> Accelerator:
    """The processes that ``accelerate launch`` started, or this one alone.

    Raises:
        UserError: it was told to use an engine that is not supported.
    """
    if _launched_with("DEEPSPEED"):
        raise UserError(
            "DeepSpeed is not supported; start with accelerate launch --use_fsdp, which splits the weights too"
        )
    # While the main process prepares the data, all others wait.
    patience = InitProcessGroupKwargs(timeout=dt.timedelta(days=7))
    # Weights are split here: accelerate's own FSDP takes no CPUs and one network alone.
    with patch_environment(ACCELERATE_USE_FSDP="false"):
        return Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[patience])


def _launched_with(engine: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true"
