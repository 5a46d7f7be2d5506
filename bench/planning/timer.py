"""Seconds by phase."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import torch


class Clock:
    """Measures seconds by phase; on CUDA it synchronises with the device at both ends of each phase.

    Attributes:
        seconds: total seconds so far, by phase.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._running: tuple[str, float] | None = None
        self.seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Seconds on a monotonic clock, after the device has finished its queued work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block as a phase."""
        self.begin(name)
        yield
        self.end()

    def begin(self, name: str) -> None:
        """Begin a phase, unless one is already running, which then continues."""
        if self._running is None:
            self._running = name, self.now()

    def end(self) -> None:
        """End the running phase, if there is one."""
        if self._running is not None:
            name, began = self._running
            self.seconds[name] += self.now() - began
            self._running = None
