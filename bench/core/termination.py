"""SIGTERM, which Slurm, Kubernetes and launchers send before they kill: the work stops at the next safe place.

Most work is safe to stop anywhere, since finished parts are on disk; there the signal ends the process at once.  Training has
state that is not on disk yet: it defers the signal, checks `requested` between micro-batches, saves, and then stops.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
"""143, what a shell shows for a process that SIGTERM ended."""


class TerminatedError(SystemExit):
    """SIGTERM has come, and the work stopped at a point where the same command resumes it; ends the process with `EXIT_CODE`."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class _State:
    """The state of the signal in this process."""

    requested = False
    deferred = 0


_STATE = _State()


def listen() -> None:
    """Handle SIGTERM from now on; for the main thread of a program, not for a library."""
    signal.signal(signal.SIGTERM, _on_signal)


def requested() -> bool:
    """Whether SIGTERM has come."""
    return _STATE.requested


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Only record SIGTERM inside the block, whose code checks `requested`; at its end a recorded signal ends the process.

    Raises:
        TerminatedError: the signal came inside the block, and the block ended without checking.
    """
    _STATE.deferred += 1
    try:
        yield
    finally:
        _STATE.deferred -= 1
    if _STATE.requested and not _STATE.deferred:
        raise TerminatedError


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    _STATE.requested = True
    if not _STATE.deferred:
        raise TerminatedError
