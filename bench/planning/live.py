"""How much memory tensors hold, without asking the operating system."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SLACK = 0.002
"""By how much a peak may be missed, as a share of it; looking for the dead at every step would take too long."""


class LiveBytes(TorchDispatchMode):
    """Bytes of tensors that were made while this mode was on, or added to it, and still live; each storage counts once.

    It sees what tensors hold, with or without values: no workspace inside a kernel, no fragmentation, nothing else of the
    process.  So it repeats, which the resident set of a process does not.

    Attributes:
        peak: the most that lived at one time, at most `SLACK` too low.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        # A Python weak reference to a storage can outlive it in torch and then crashes the process; torch's own cannot.
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._most = 0  # what lives now and what has died since it was last looked at

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            # A tensor without values computes on the meta device, which is not what is asked.
            if isinstance(value, Tensor) and value.device.type != "meta":
                self._count(value.untyped_storage())
        return result

    @property
    def now(self) -> int:
        """Bytes that live."""
        self._held = {key: held for key, held in self._held.items() if not held[0].expired()}
        self._most = sum(size for _, size in self._held.values())
        return self._most

    def allow(self, more: int) -> None:
        """Raise the peak to ``more`` bytes above what lives now."""
        self.peak = max(self.peak, self.now + more)

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # noqa: SLF001
        if key in self._held:
            return
        size = storage.nbytes()
        self._held[key] = StorageWeakRef(storage), size
        self._most += size
        if self._most > self.peak * (1 + SLACK):
            self.peak = max(self.peak, self.now)


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each storage once."""
    storages = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}  # noqa: SLF001
    return sum(storages.values())


def network_tensors(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers of a network."""
    return [*network.parameters(), *network.buffers()]
