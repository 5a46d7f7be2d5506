"""SIGTERM, which Slurm, Kubernetes and launchers send before they kill, Ctrl-C and a closed terminal: work stops at the next safe place.

Most work is safe to stop anywhere, since finished parts are on disk; there the signal ends the process at once.  Training has
state that is not on disk yet: it defers the signal, checks `requested` between micro-batches, saves, and then stops.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from bench.core import ranks

LAUNCHER_ECHO = 1.0
"""Seconds within which launched processes get one Ctrl-C twice: from the terminal, and from the launcher that passes it on."""


class TerminatedError(SystemExit):
    """A signal has come, and the work stopped at a point where the same command resumes it; ends the process with `exit_code`."""

    def __init__(self) -> None:
        super().__init__(exit_code())


class _State:
    """The state of the signal in this process."""

    received: int | None = None
    received_at = 0.0
    deferred = 0


_STATE = _State()


def listen() -> None:
    """Handle SIGTERM, SIGINT (Ctrl-C) and SIGHUP from now on; for the main thread of a program, not for a library."""
    signal.signal(signal.SIGTERM, _on_signal)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
        signal.signal(signal.SIGHUP, _on_signal)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores Ctrl-C
        signal.signal(signal.SIGINT, _on_signal)


def ignore() -> None:
    """Ignore SIGTERM from now on, since this process is ending: schedulers send it to a whole job, some of whose processes pass it on."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def requested() -> bool:
    """Whether one of the signals has come."""
    return _STATE.received is not None


def exit_code() -> int:
    """What a shell shows for a process that the signal ended: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP.

    A process that stops because another one received a signal has the code of SIGTERM.
    """
    return 128 + (signal.SIGTERM if _STATE.received is None else _STATE.received)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Only record a signal inside the block, whose code checks `requested`; at its end a recorded signal ends the process.

    A second Ctrl-C ends the block at once, with KeyboardInterrupt.

    Raises:
        TerminatedError: a signal came inside the block, and the block ended without checking.
    """
    _STATE.deferred += 1
    try:
        yield
    finally:
        _STATE.deferred -= 1
    if requested() and not _STATE.deferred:
        raise TerminatedError


def _on_signal(number: int, _frame: FrameType | None) -> None:
    repeated, now = _STATE.received == signal.SIGINT and number == signal.SIGINT, time.monotonic()
    if repeated and ranks.count() > 1 and now - _STATE.received_at < LAUNCHER_ECHO:
        return
    _STATE.received, _STATE.received_at = number, now
    if number == signal.SIGHUP:
        _print_nowhere()
    if _STATE.deferred and not repeated:
        return
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise TerminatedError


def _print_nowhere() -> None:
    """Standard output and error go nowhere unless they are files: the terminal is gone, or the program that read them for it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or not a file of the system
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
                    os.dup2(nowhere.fileno(), stream.fileno())
