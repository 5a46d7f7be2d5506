"""Cards that plans are made for."""

from __future__ import annotations

import dataclasses

from bench.errors import UserError
from bench.registry import nearest

GIB = 2**30
RESERVED = GIB
"""What the driver's context and the libraries' workspaces take of a card, in bytes; assumed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Accelerator:
    """A card: what it can hold, in bytes, and compute densely at most, in operations a second, with float32 sums."""

    memory: int
    bf16: float
    fp32: float

    def peak(self, precision: str) -> float:
        """The most operations a second in ``bf16`` or ``fp32``; the latter without TF32, as torch has it by default."""
        return {"bf16": self.bf16, "fp32": self.fp32}[precision]

    def fits(self, memory: int) -> bool:
        """Whether so many bytes of tensors have place."""
        return memory + RESERVED <= self.memory


# NVIDIA's data sheets and architecture papers: dense figures, half of those that are given with sparsity.
ACCELERATORS = {
    "rtx-3090": Accelerator(24 * GIB, 71e12, 35.6e12),
    "rtx-4090": Accelerator(24 * GIB, 165.2e12, 82.6e12),
    "rtx-5090": Accelerator(32 * GIB, 209.5e12, 104.8e12),
    "l4": Accelerator(24 * GIB, 121e12, 30.3e12),
    "a10": Accelerator(24 * GIB, 125e12, 31.2e12),
    "a6000": Accelerator(48 * GIB, 154.8e12, 38.7e12),
    "l40s": Accelerator(48 * GIB, 362e12, 91.6e12),
    "a100-40gb": Accelerator(40 * GIB, 312e12, 19.5e12),
    "a100-80gb": Accelerator(80 * GIB, 312e12, 19.5e12),
    "h100": Accelerator(80 * GIB, 989.4e12, 66.9e12),
    "h200": Accelerator(140 * GIB, 989.4e12, 66.9e12),
    "b200": Accelerator(179 * GIB, 2250e12, 75e12),
}


def find_accelerators(typed: str | None) -> dict[str, Accelerator]:
    """The card of that name, or all cards.

    Raises:
        UserError: no such card is known.
    """
    if typed is None:
        return ACCELERATORS
    if typed not in ACCELERATORS:
        raise UserError(f"unknown card {typed!r}: {nearest(typed, ACCELERATORS)}there are {', '.join(ACCELERATORS)}")
    return {typed: ACCELERATORS[typed]}
