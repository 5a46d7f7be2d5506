"""Whether a machine without a GPU has enough memory for a training step."""

from __future__ import annotations

import os

from bench.core.errors import UserError
from bench.planning.gpus import GIB
from bench.planning.plan import Plan


def host_memory() -> int:
    """Bytes of main memory, whether in use or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def refuse_too_large(name: str, model: str, plan: Plan, memory: int) -> None:
    """Refuse training that would end, hours later, in swapping or a killed process.

    Args:
        name: the algorithm's registered name.
        model: what the user called the model.
        plan: the plan of the run, on a CPU.
        memory: bytes of main memory.

    Raises:
        UserError: training or encoding needs more.
    """
    needed = max(plan.training.memory.peak, plan.encoding.memory)
    if needed > memory:
        raise UserError(
            f"{name} on {model} needs {needed / GIB:.3g} GiB of memory, and this machine has no GPU and {memory / GIB:.3g} GiB: "
            f"run bench profile where there is a GPU; bench plan --algo {name} --model {model} says which GPUs are large enough"
        )
