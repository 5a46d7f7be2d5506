"""How much memory tensors hold, measured without the operating system, and how many operations are run on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from bench.core.flops import FlopCounter

SLACK = 0.005
"""Relative error allowed in a peak; looking for freed storages at every operation would take too long."""


class MemoryTracker(FlopCounter):
    """Counts operations, and the bytes of live tensors that were made while it was active or passed to `keep`.

    Each storage counts once.  It sees only what tensors hold, with or without values: not workspaces inside kernels, not
    fragmentation, not the rest of the process.  So its figures are reproducible, unlike the resident set of a process.

    Attributes:
        peak: the most bytes alive at one time; at most a share `SLACK` too low.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        # A Python weak reference to a storage can outlive it in torch and then crashes the process; torch's own cannot.
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._kept: dict[int, torch.UntypedStorage] = {}
        self._kept_bytes = 0
        self._most = 0  # upper bound of what is alive: storages freed since the last look still count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    @property
    def now(self) -> int:
        """Bytes alive now."""
        self._held = {key: held for key, held in self._held.items() if not held[0].expired()}
        self._most = self._kept_bytes + sum(size for _, size in self._held.values())
        return self._most

    def keep(self, tensors: Iterable[Tensor]) -> None:
        """Count these tensors from now on, and keep them alive."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            self._kept[storage._cdata] = storage  # noqa: SLF001
            self._held.pop(storage._cdata, None)  # noqa: SLF001
        self._kept_bytes = sum(storage.nbytes() for storage in self._kept.values())
        self.raise_peak(0)

    def raise_peak(self, more: int) -> None:
        """Raise the peak to at least ``more`` bytes above what is alive now."""
        self.peak = max(self.peak, self.now + more)

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # noqa: SLF001
        if key in self._held or key in self._kept:
            return
        size = storage.nbytes()
        self._held[key] = StorageWeakRef(storage), size
        self._most += size
        if self._most > self.peak * (1 + SLACK):
            self.peak = max(self.peak, self.now)


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors; each storage counts once."""
    storages = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}  # noqa: SLF001
    return sum(storages.values())


def network_tensors(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers of a network."""
    return [*network.parameters(), *network.buffers()]
