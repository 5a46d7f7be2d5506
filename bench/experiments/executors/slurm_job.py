"""What runs in a Slurm job: a cell's command, which is told of the job's time limit as SIGTERM.

submitit pickles a `CellJob` and calls it on every node of the job.  Slurm announces the limit with SIGUSR2, whereupon submitit
calls `CellJob.checkpoint` on the first node and puts the job back into the queue.  The pickle holds nothing but the command: what
is done stands in the run's folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from bench.core.files import make_folder
from bench.experiments.executors.base import command, outcome, record
from bench.records.studies import STOPPED, Cell, StudyFolder

FOLDER = "slurm"
"""Folder of a study where submitit keeps its files."""
PAUSE = 0.2
"""Seconds between two looks at the command."""
MARGIN = 10
"""Seconds before the limit at which the job goes back into the queue even if the command has not saved yet."""
PORTS = 20_000
"""Ports from 20,000 on, one per job, where the processes of several nodes meet."""


@dataclasses.dataclass(frozen=True)
class CellJob:
    """A cell as a Slurm job.

    Attributes:
        cell: the command.
        study: the study's folder; relative paths are relative to where the jobs were submitted.
        threads: CPU threads per process.
        notice: seconds between the signal and the time limit.
        requeue: whether the job goes back into the queue at its time limit.
    """

    cell: Cell
    study: StudyFolder
    threads: int
    notice: int
    requeue: bool

    _processes: ClassVar[list[subprocess.Popen[bytes]]] = []
    """The command of this process, where the signal's handler finds it."""

    def __call__(self) -> None:
        """Run the command until it ends.

        Raises:
            SystemExit: it failed, or a signal stopped it.
        """
        first = os.environ.get("SLURM_NODEID", "0") == "0"
        if first:
            for half in half_written(self.study.folder / FOLDER, os.environ):
                half.unlink()
        log = self.study.log(self.cell)
        make_folder(log.parent)
        with log.open("ab") if first else contextlib.nullcontext() as stream:
            process = subprocess.Popen(
                command(self.cell, machine_words(os.environ)),
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT if first else None,
                preexec_fn=_ignore_notice,  # noqa: PLW1509 (there are no threads here)
            )
            self._processes.append(process)
            signal.signal(signal.SIGTERM, self._pass_on)
            if first:
                record(self.study, self.cell, process.pid)
            while (code := process.poll()) is None:
                time.sleep(PAUSE)
        if first:
            self._end(outcome(self.cell, code))

    def checkpoint(self) -> Any:
        """Let the command save before the time limit; submitit calls it in the signal's handler.

        Returns:
            What runs when the job's turn comes again; None if the job must not go back into the queue.

        Raises:
            SystemExit: the command was finished, or failed.
        """
        from submitit.helpers import DelayedSubmission

        code = None
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            code = _ended(process.pid, max(MARGIN, self.notice - MARGIN))
        if code is not None:
            record(self.study, self.cell, self._processes[-1].pid, outcome(self.cell, code, stopped=True))
            if outcome(self.cell, code, stopped=True) not in STOPPED:
                raise SystemExit(code)
        return DelayedSubmission(self) if self.requeue else None

    def _end(self, code: int) -> None:
        record(self.study, self.cell, self._processes[-1].pid, code)
        if code:
            raise SystemExit(code)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Pass SIGTERM on, which submitit ignores; Slurm sends it to a job that is cancelled or has to make room."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def machine_words(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What ``accelerate launch`` has to know about the nodes of this job; nothing if there is one."""
    count = int(environment.get("SLURM_JOB_NUM_NODES", "1"))
    if count == 1:
        return ()
    return (
        *("--num_machines", str(count), "--machine_rank", environment["SLURM_NODEID"]),
        *("--main_process_ip", environment["SLURM_LAUNCH_NODE_IPADDR"]),
        *("--main_process_port", str(PORTS + int(environment["SLURM_JOB_ID"]) % 10_000)),
    )


def half_written(folder: Path, environment: Mapping[str, str]) -> Sequence[Path]:
    """The files that this job was writing when it lost its node.

    Beside one of them submitit neither puts a job back into the queue nor reports its end.
    """
    array = environment.get("SLURM_ARRAY_JOB_ID")
    job = environment.get("SLURM_JOB_ID") if array is None else f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    return list(folder.glob(f"{job}_*.save_tmp"))


def _ended(process: int, patience: float) -> int | None:
    """The exit code of a child that may already have been waited for; None if it still runs after so many seconds.

    It is not collected, since the handler may have interrupted the one who does.
    """
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None
        if ended is not None:
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        time.sleep(PAUSE)
    return None


def _ignore_notice() -> None:
    """Slurm sends the notice to every process of the job, and SIGUSR2 would end the command at once."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
