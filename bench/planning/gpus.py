"""Cards that plans are made for."""

from __future__ import annotations

import dataclasses

from bench.core.errors import UserError, did_you_mean

GIB = 2**30
RESERVED = GIB
"""What the process's context, the libraries' workspaces and gaps between tensors take of a card, in bytes; assumed."""

ARITHMETIC = {
    "bf16": "bf16 with float32 sums",
    "fp32": "float32 without TF32",
}
"""What the operations of a precision are that a card's peak and a measured ceiling count."""


@dataclasses.dataclass(frozen=True, slots=True)
class GpuSpec:
    """A card.

    Attributes:
        memory: bytes that the driver gives a process, its own share taken off.
        bf16: operations a second at most, dense, with float32 sums.
        fp32: the same without TF32, which nothing here uses; see `bench.core.precision.full_precision`.
    """

    memory: int
    bf16: float
    fp32: float

    def peak(self, precision: str) -> float:
        """The most operations a second in ``bf16`` or ``fp32``; see `ARITHMETIC`."""
        return {"bf16": self.bf16, "fp32": self.fp32}[precision]

    def fits(self, memory: int) -> bool:
        """Whether so many bytes of tensors have place."""
        return memory + RESERVED <= self.memory


def _gpu(gibibytes: float, bf16: float, fp32: float) -> GpuSpec:
    return GpuSpec(round(gibibytes * GIB), bf16, fp32)


# Memory is the total that CUDA reports, as torch prints it when memory runs out: less than the data sheet's, most of all where
# error correction keeps a sixteenth for itself (L4, A10, L40S).  Read in users' reports; drivers differ by about 0.1 GiB.
# Operations are from NVIDIA's data sheets and architecture papers: dense, half of those that are given with sparsity.
ACCELERATORS = {
    "rtx-3090": _gpu(23.6, 71e12, 35.6e12),
    "rtx-4090": _gpu(23.6, 165.2e12, 82.6e12),
    "rtx-5090": _gpu(31.4, 209.5e12, 104.8e12),
    "l4": _gpu(22.0, 121e12, 30.3e12),
    "a10": _gpu(22.0, 125e12, 31.2e12),
    "a6000": _gpu(47.5, 154.8e12, 38.7e12),
    "l40s": _gpu(44.4, 362e12, 91.6e12),
    "a100-40gb": _gpu(39.4, 312e12, 19.5e12),
    "a100-80gb": _gpu(79.1, 312e12, 19.5e12),
    "h100": _gpu(79.1, 989.4e12, 66.9e12),
    "h200": _gpu(139.8, 989.4e12, 66.9e12),
    "b200": _gpu(178.3, 2250e12, 75e12),
}


def find_gpus(typed: str | None) -> dict[str, GpuSpec]:
    """The card of that name, or all cards.

    Raises:
        UserError: no such card is known.
    """
    if typed is None:
        return ACCELERATORS
    plainly = {_letters_and_digits(name): name for name in ACCELERATORS}
    name = plainly.get(_letters_and_digits(typed))
    if name is None:
        raise UserError(
            f"unknown card {typed!r}: {did_you_mean(typed, ACCELERATORS)}there are {', '.join(ACCELERATORS)}"
        )
    return {name: ACCELERATORS[name]}


def _letters_and_digits(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
