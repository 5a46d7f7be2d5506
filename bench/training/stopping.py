"""Stopping between pieces of work on all processes at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from accelerate import Accelerator

from bench.core import termination
from bench.core.processes import Processes

Piece = TypeVar("Piece")


def stoppable(accelerator: Accelerator, pieces: Iterable[Piece], rounds: int) -> Iterator[Piece]:
    """This process's pieces of work; before each, all processes stop together if any of them has received a signal.

    The check is collective, and processes may have different numbers of pieces, so every process runs it as often as the one with
    the most.

    Args:
        accelerator: the processes.
        pieces: this process's.
        rounds: the largest number of pieces that any process has.

    Raises:
        TerminatedError: SIGTERM or Ctrl-C has arrived.
    """
    processes, own = Processes(accelerator), iter(pieces)
    for _ in range(rounds):
        if processes.any(termination.requested()):
            raise termination.TerminatedError
        for piece in own:
            yield piece
            break
