"""What a run costs: pairs, forwards, backwards, operations, seconds, memory."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from bench.core.errors import UserError
from bench.training.settings import Budget

RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

COUNTS = ("policy_forwards", "policy_backwards", "reference_forwards")
"""Calls of the networks, which each process counts for itself."""
SUMMED = (*COUNTS, "reward_calls")
"""All that each process counts for itself."""


@dataclasses.dataclass(slots=True)
class Ledger:
    """Costs of one run; forwards and backwards are counted per image and summed over processes.

    ``flops`` counts a backward as two forwards; ``seconds`` is the wall-clock time of training times the number of processes;
    ``samples`` and ``reward_calls`` count images that online algorithms sampled and scored; of an online run, ``pairs`` are the samples
    that it has trained on.
    ``peak_memory_bytes`` is the peak of one process so far: its resident set on a CPU, its allocated device memory on CUDA.
    """

    pairs: int = 0
    policy_forwards: int = 0
    policy_backwards: int = 0
    reference_forwards: int = 0
    flops: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    samples: int = 0
    reward_calls: int = 0

    def total(self, unit: str) -> float:
        """What the run has cost so far in a unit of `Budget`; in ``forwards`` a backward counts as two."""
        if unit == "forwards":
            return in_forwards({name: getattr(self, name) for name in COUNTS})
        return float(getattr(self, "reward_calls" if unit == "rewards" else unit))

    def reset_peak_memory(self, device: torch.device) -> None:
        """Reset the peak: memory that this process used earlier does not count towards this run."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif RESET.exists():
            RESET.write_text("5")

    def record_peak_memory(self, device: torch.device) -> None:
        """Raise ``peak_memory_bytes`` to what this process has used since `reset_peak_memory`."""
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
        elif STATUS.exists():
            peak = int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) * 1024
        else:  # outside Linux the peak cannot be reset
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak)

    def restore(self, earlier: Ledger) -> None:
        """Set every count back to an earlier value."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(earlier, field.name))

    def reset_counts(self) -> None:
        """Set the counts of this process back to 0."""
        for name in SUMMED:
            setattr(self, name, 0)


@contextlib.contextmanager
def uncounted(ledger: Ledger) -> Iterator[None]:
    """Set a ledger back, at the end of the block, to what it was at its beginning."""
    before = dataclasses.replace(ledger)
    try:
        yield
    finally:
        ledger.restore(before)


def in_forwards(counts: Mapping[str, float]) -> float:
    """Total cost in forwards of counts named as in `COUNTS`; a backward counts as two."""
    return counts["policy_forwards"] + 2 * counts["policy_backwards"] + counts["reference_forwards"]


def refuse_spent_budget(budget: Budget | None, prepared: int) -> None:
    """Raise a `UserError` when preparing the data, at ``prepared`` forwards, uses up the whole budget."""
    if budget is not None and budget.unit == "forwards" and prepared >= budget.amount:
        raise UserError(
            f"preparing the data alone costs {prepared:,} forwards, which uses up the budget of {budget.amount:,g}; "
            "raise --budget"
        )
