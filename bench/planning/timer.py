"""Seconds by phase."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import torch


class Clock:
    """Counts seconds by name of phase; on CUDA it waits for the device at both ends of each.

    Attributes:
        seconds: so far, by phase.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._running: tuple[str, float] | None = None
        self.seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Seconds since some moment, when the device has done what it was told."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The block is a phase."""
        self.begin(name)
        yield
        self.end()

    def begin(self, name: str) -> None:
        """Begin a phase, unless one runs already: then it goes on."""
        if self._running is None:
            self._running = name, self.now()

    def end(self) -> None:
        """End the phase that runs."""
        if self._running is not None:
            name, began = self._running
            self.seconds[name] += self.now() - began
            self._running = None
