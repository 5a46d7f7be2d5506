"""The GPUs that plans are made for."""

from __future__ import annotations

import dataclasses

from bench.core.errors import UserError, did_you_mean

GIB = 2**30
RESERVED = GIB
"""Bytes of GPU memory taken by the CUDA context, library workspaces and fragmentation; assumed."""

ARITHMETIC = {
    "bf16": "bf16 with float32 sums",
    "fp32": "float32 without TF32",
}
"""The arithmetic that a GPU's peak and a measured ceiling refer to, by precision."""


@dataclasses.dataclass(frozen=True, slots=True)
class GpuSpec:
    """A GPU's memory and peak throughput.

    Attributes:
        memory: bytes available to a process, without the driver's own share.
        bf16: peak operations per second, dense, with float32 accumulation.
        fp32: the same in float32 without TF32, which is not used here; see `bench.core.precision.full_precision`.
    """

    memory: int
    bf16: float
    fp32: float

    def peak(self, precision: str) -> float:
        """Peak operations per second in ``bf16`` or ``fp32``; see `ARITHMETIC`."""
        return {"bf16": self.bf16, "fp32": self.fp32}[precision]

    def fits(self, memory: int) -> bool:
        """Whether this many bytes of tensors fit, with `RESERVED` bytes kept free."""
        return memory + RESERVED <= self.memory


def _gpu(gibibytes: float, bf16: float, fp32: float) -> GpuSpec:
    return GpuSpec(round(gibibytes * GIB), bf16, fp32)


# Memory is the total that CUDA reports, as torch prints it when memory runs out: less than in the data sheets, especially where
# error correction takes a sixteenth (L4, A10, L40S).  Taken from users' reports; drivers differ by about 0.1 GiB.
# Operations are from NVIDIA's data sheets and architecture papers: dense, i.e. half of the figures with sparsity.
GPUS = {
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
    """The GPU of that name, or all GPUs for None.

    Raises:
        UserError: no such GPU is known.
    """
    if typed is None:
        return GPUS
    plainly = {_letters_and_digits(name): name for name in GPUS}
    name = plainly.get(_letters_and_digits(typed))
    if name is None:
        raise UserError(f"unknown GPU {typed!r}: {did_you_mean(typed, GPUS)}there are {', '.join(GPUS)}")
    return {name: GPUS[name]}


def _letters_and_digits(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
