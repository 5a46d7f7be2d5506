"""The executor of one machine: several cells at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import heapq
import itertools
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, ClassVar

from pydantic import Field

from bench.core import ranks, termination
from bench.core.errors import UserError
from bench.core.files import make_folder
from bench.core.progress import Progress, say
from bench.experiments.executors.base import Executor, Matrix, command, outcome, record
from bench.records.config import BASE
from bench.records.states import states_of_study
from bench.records.studies import STOPPED, Cell

PAUSE = 0.2
"""Seconds between two looks at the running cells."""
NOT_STARTED = -1
"""Stands for the exit code of a cell whose predecessor failed."""
PR_SET_PDEATHSIG = 1
"""The operation of Linux's prctl that asks for a signal when the parent ends."""
PRCTL: Any = getattr(ctypes.CDLL(None), "prctl", None)
"""Looked up before a child needs it, since looking takes a lock; None on macOS, where a killed parent leaves its cells running."""


class Local(Executor):
    """Runs ``jobs`` cells at a time; a cell that fails leaves the others alone, and every cell saves where this process is stopped."""

    title: ClassVar[str] = "on this machine, several cells at a time"

    jobs: int = Field(default=1, ge=1, description="cells that run at the same time")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads per process; default: the cores of this machine, divided by the processes, and no more than OMP_NUM_THREADS",
    )

    def start(self, matrix: Matrix) -> Sequence[str]:
        """See `Executor.start`."""
        if ranks.count() > 1:
            raise UserError(
                "an executor starts processes itself; start it without accelerate launch, and use processes=N"
            )
        environments = self._environments()
        with termination.deferred(), Progress("runs", total=sum(map(_is_run, matrix.cells))) as progress:
            board = _Board(matrix, environments, progress)
            with board.stopping():
                while board.busy() and not termination.requested():
                    board.start_waiting()
                    board.collect()
                    board.show()
                    time.sleep(PAUSE)
        return board.failed

    def _environments(self) -> list[dict[str, str]]:
        """What each of the ``jobs`` places adds to the environment: threads, and GPUs, which places share if there are too few."""
        import torch

        cores = len(os.sched_getaffinity(0))
        share = max(1, cores // (self.jobs * self.processes))
        wanted = os.environ.get("OMP_NUM_THREADS", "")
        threads = self.threads or (min(share, int(wanted)) if wanted.isdecimal() and int(wanted) else share)
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = shown.split(",") if shown else [str(number) for number in range(torch.cuda.device_count())]
        gpus = list(itertools.takewhile(lambda gpu: gpu != "-1", gpus))  # CUDA hides those after it
        shares = len(gpus) // self.processes
        if 0 < shares < self.jobs:
            say(
                f"runs share GPUs: {len(gpus)} are too few for --jobs {self.jobs}; --jobs {shares} gives each run its own"
            )
        places: list[dict[str, str]] = []
        for job in range(self.jobs):
            places.append({"OMP_NUM_THREADS": str(threads)})
            if shares:
                first = job % shares * self.processes
                places[job]["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + self.processes])
        return places


def _is_run(cell: Cell) -> bool:
    """Whether a cell counts in the progress; the evaluation of a base model takes another time, and is not what was asked for."""
    return cell.name.rpartition("/")[2] != BASE


def seconds_left(each: float, ages: Sequence[float], waiting: int, places: int) -> float:
    """Seconds until runs of one length have ended, if a place that is free takes the next one.

    Args:
        each: seconds that a run takes.
        ages: for how many seconds each of the running ones has been running.
        waiting: how many have not been started.
        places: how many may run at the same time.

    Returns:
        0 if all are running and each has taken longer than that already.
    """
    free = [max(0.0, each - age) for age in ages] + [0.0] * (places - len(ages))
    heapq.heapify(free)
    for _ in range(waiting):
        heapq.heapreplace(free, free[0] + each)
    return max(free)


@dataclasses.dataclass(frozen=True, slots=True)
class _Running:
    cell: Cell
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    started: float

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started


class _Board:
    """The cells of a matrix: those that wait, those that run, and how the others ended.

    Args:
        matrix: the cells.
        environments: additions to the environment, one per cell that may run at a time.
        progress: where the runs among them are shown.
    """

    def __init__(self, matrix: Matrix, environments: Sequence[Mapping[str, str]], progress: Progress) -> None:
        self._matrix, self._progress = matrix, progress
        self._waiting = list(matrix.cells)
        self._running: dict[int, _Running] = {}
        self._environments = dict(enumerate(environments))
        self._codes: dict[str, int] = {}
        self._found = {state.name for state in states_of_study(matrix.study) if state.kind == "done"}
        self._seconds: list[float] = []
        self._shown = 0

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

    def collect(self) -> None:
        """Record which cells have ended."""
        for place, each in list(self._running.items()):
            if (code := each.process.poll()) is not None:
                del self._running[place]
                each.log.close()
                self._end(each, outcome(each.cell, code, stopped=termination.requested()))

    def show(self) -> None:
        """Show how many runs have ended and how many commands are running, and when all will have ended."""
        if self._seconds:
            each, waiting = statistics.fmean(self._seconds), sum(map(self._is_work, self._waiting))
            ages = [running.age for running in self._running.values() if self._is_work(running.cell)]
            self._progress.expect(each, seconds_left(each, ages, waiting, len(self._environments)))
        self._progress.advance(len(self._seconds) - self._shown, running=len(self._running))
        self._shown = len(self._seconds)

    def _is_work(self, cell: Cell) -> bool:
        """Whether a cell is a run that was not done before."""
        return _is_run(cell) and cell.name not in self._found

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """At the end of the block, also after an error, let every running cell save and end; at once after another Ctrl-C."""
        try:
            try:
                yield
            except Exception:
                self._stop()
                raise
            self._stop()
        finally:
            for each in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(each.process.pid, signal.SIGKILL)
                each.process.wait()
                each.log.close()

    def _stop(self) -> None:
        for each in self._running.values():
            each.process.send_signal(signal.SIGTERM)
        while self._running:
            self.collect()
            time.sleep(PAUSE)

    def _start(self, cell: Cell, place: int) -> None:
        if cell.after is not None and self._codes.get(cell.after):
            self._codes[cell.name] = NOT_STARTED
            self._progress.found(_is_run(cell))
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
            preexec_fn=_end_with_parent if PRCTL else None,  # noqa: PLW1509 (it calls one function of C, which takes no lock)
        )
        self._running[place] = _Running(cell, process, log, time.monotonic())
        record(self._matrix.study, cell, process.pid)

    def _end(self, ended: _Running, code: int) -> None:
        cell = ended.cell
        self._codes[cell.name] = code
        record(self._matrix.study, cell, ended.process.pid, code)
        if not code and self._is_work(cell):
            self._seconds.append(ended.age)
        elif code not in STOPPED:
            self._progress.found(_is_run(cell))  # what failed, or was done before, tells nothing about the others
        if code and not termination.requested():
            say(f"{cell.name} failed; see {self._matrix.study.log(cell)}")


def _end_with_parent() -> None:
    """Let a cell save and end if this process is killed: the same command would start further cells beside it."""
    PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)
