"""The executor of one machine: several cells at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, ClassVar

from pydantic import Field

from bench.core import ranks, termination
from bench.core.errors import UserError
from bench.core.files import make_folder
from bench.core.progress import Progress, say
from bench.experiments.executors.base import Executor, Matrix, command, outcome
from bench.records.studies import Cell

PAUSE = 0.2
"""Seconds between two looks at the running cells."""
NOT_STARTED = -1
"""Stands for the exit code of a cell whose predecessor failed."""


class Local(Executor):
    """Runs ``jobs`` cells at a time; a cell that fails leaves the others alone, and Ctrl-C or SIGTERM lets every cell save."""

    title: ClassVar[str] = "on this machine, several cells at a time"

    jobs: int = Field(default=1, ge=1, description="cells that run at the same time")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads per process; default: the cores of this machine, divided by the processes",
    )

    def start(self, matrix: Matrix) -> Sequence[str]:
        """See `Executor.start`."""
        if ranks.count() > 1:
            raise UserError(
                "an executor starts processes itself; start it without accelerate launch, and use processes=N"
            )
        environments = self._environments()
        with termination.deferred(), Progress("cells", total=len(matrix.cells)) as progress:
            board = _Board(matrix, environments)
            with board.stopping():
                while board.busy() and not termination.requested():
                    board.start_waiting()
                    progress.advance(board.collect())
                    time.sleep(PAUSE)
        return board.failed

    def _environments(self) -> list[dict[str, str]]:
        """What each of the ``jobs`` places adds to the environment: threads, and GPUs if there are enough for all."""
        import torch

        cores = len(os.sched_getaffinity(0))
        threads = self.threads or max(1, cores // (self.jobs * self.processes))
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = shown.split(",") if shown else [str(number) for number in range(torch.cuda.device_count())]
        places: list[dict[str, str]] = []
        for job in range(self.jobs):
            own = gpus[job * self.processes : (job + 1) * self.processes]
            places.append({"OMP_NUM_THREADS": str(threads)})
            if len(gpus) >= self.jobs * self.processes:
                places[job]["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        return places


class _Board:
    """The cells of a matrix: those that wait, those that run, and how the others ended.

    Args:
        matrix: the cells.
        environments: additions to the environment, one per cell that may run at a time.
    """

    def __init__(self, matrix: Matrix, environments: Sequence[Mapping[str, str]]) -> None:
        self._matrix = matrix
        self._waiting = list(matrix.cells)
        self._running: dict[int, tuple[Cell, subprocess.Popen[bytes], IO[bytes]]] = {}
        self._environments = dict(enumerate(environments))
        self._codes: dict[str, int] = {}

    @property
    def failed(self) -> list[str]:
        """Names of the cells that ended with an error, or were not started because the one before them did."""
        return [name for name, code in self._codes.items() if code]

    def busy(self) -> bool:
        """Whether a cell runs or waits."""
        return bool(self._running or self._waiting)

    def start_waiting(self) -> None:
        """Start cells whose predecessor is finished, as long as there are free places."""
        for cell in list(self._waiting):
            free = self._environments.keys() - self._running.keys()
            if not free:
                return
            if cell.after in self._codes or all(each.name != cell.after for each in self._matrix.cells):
                self._waiting.remove(cell)
                self._start(cell, min(free))

    def collect(self) -> int:
        """Record which cells have ended; returns how many, with those that will not be started after a failure."""
        before = len(self._codes)
        for place, (cell, process, log) in list(self._running.items()):
            if (code := process.poll()) is not None:
                del self._running[place]
                log.close()
                self._end(cell, process.pid, outcome(cell, code, stopped=termination.requested()))
        return len(self._codes) - before

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """At the end of the block let every running cell save and end; at once if the block is left by an exception."""
        try:
            yield
            for _, process, _ in self._running.values():
                process.send_signal(signal.SIGTERM)
            while self._running:
                self.collect()
                time.sleep(PAUSE)
        finally:
            for _, process, log in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                log.close()

    def _start(self, cell: Cell, place: int) -> None:
        if cell.after is not None and self._codes.get(cell.after):
            self._codes[cell.name] = NOT_STARTED
            say(f"{cell.name} was not started, since {cell.after} failed")
            return
        path = self._matrix.study.log(cell)
        make_folder(path.parent)
        log = path.open("ab")
        # A session of its own: Ctrl-C of the terminal comes to this process alone, which passes it on once.
        process = subprocess.Popen(
            command(cell),
            env={**os.environ, **self._environments[place]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._running[place] = (cell, process, log)
        self._matrix.study.record(cell, process.pid)

    def _end(self, cell: Cell, process: int, code: int) -> None:
        self._codes[cell.name] = code
        self._matrix.study.record(cell, process, code)
        if code and not termination.requested():
            say(f"{cell.name} failed; see {self._matrix.study.log(cell)}")
