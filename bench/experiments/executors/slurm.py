"""The executor for clusters that Slurm schedules: one job per cell, in arrays, submitted by submitit."""

from __future__ import annotations

import getpass
import importlib.util
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from bench.core.chunks import batch_slices
from bench.core.errors import UserError
from bench.core.progress import say
from bench.experiments.executors.base import Executor, Matrix
from bench.experiments.executors.slurm_job import FOLDER, CellJob
from bench.records.states import states_of_study
from bench.records.studies import Cell

LARGEST_ARRAY = 1000
"""Jobs of an array, at most: Slurm refuses larger ones unless its MaxArraySize is set."""


class Slurm(Executor):
    """Submits a job for every cell that is not done; at the time limit a job saves, queues again and continues."""

    title: ClassVar[str] = "on a Slurm cluster, one job per cell, which continues after every time limit"
    waits: ClassVar[bool] = False

    partition: str | None = Field(default=None, description="partition; default: the cluster's")
    account: str | None = Field(default=None, description="account that is charged; default: yours")
    minutes: int = Field(default=24 * 60, ge=1, description="time limit of a job; a cell may take several of them")
    notice: int = Field(default=120, ge=20, description="seconds before the time limit at which a run is told to save")
    requeue: bool = Field(
        default=True, description="whether a job queues again after its time limit, and when its node is lost"
    )
    nodes: int = Field(default=1, ge=1, description="nodes that share a cell; processes counts those of all nodes")
    gpus: int | None = Field(default=None, ge=0, description="GPUs per node; default: one per process; 0 for none")
    cpus: int | None = Field(default=None, ge=1, description="CPUs per node; default: the cluster's")
    memory: str | None = Field(default=None, description="memory per node, for example 64G; default: the cluster's")
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads per process; default: cpus, divided by the processes of a node"
    )
    jobs: int = Field(default=256, ge=1, description="jobs of an array that run at the same time")
    sbatch: str = Field(default="", description="further options of sbatch, for example '--qos=high --constraint=h100'")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.processes % self.nodes:
            raise ValueError(f"processes={self.processes} cannot be shared evenly by nodes={self.nodes}")
        if self.notice >= self.minutes * 60:
            raise ValueError(f"notice={self.notice} seconds must be less than minutes={self.minutes}")
        _options(self.sbatch)
        return self

    def start(self, matrix: Matrix) -> Sequence[str]:
        """See `Executor.start`; submits and returns, so nothing fails."""
        _check_installed()
        queued = _queued(matrix)
        done = {state.name for state in states_of_study(matrix.study) if state.kind == "done"}
        wanted = [cell for cell in matrix.cells if cell.name not in done and cell.name not in queued]
        jobs = dict(queued)
        for after, cells in _by_predecessor(wanted).items():
            for part in batch_slices(len(cells), LARGEST_ARRAY):
                jobs |= self._submit(matrix, cells[part], jobs.get(after) if after is not None else None)
                matrix.study.record_jobs(jobs)
        where = "" if str(matrix.study.runs) == "runs" else f" --runs {shlex.quote(str(matrix.study.runs))}"
        say(
            f"submitted {len(wanted)} jobs to Slurm ({len(done)} commands are done, {len(queued)} were in the queue); watch them "
            f"with: bench status {matrix.study.name} --watch{where}"
        )
        return ()

    def _submit(self, matrix: Matrix, cells: Sequence[Cell], after: str | None) -> dict[str, str]:
        """Submit an array of jobs; returns their ids by name of the cell."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        more: dict[str, Any] = {
            **({"requeue": True} if self.requeue else {"no-requeue": True}),
            **_options(self.sbatch),
        }
        if after is not None:
            more |= {"dependency": f"afterok:{after}", "kill-on-invalid-dep": "yes"}
        executor = SlurmExecutor(matrix.study.folder / FOLDER, max_num_timeout=sys.maxsize)
        executor.update_parameters(**self._parameters(matrix), additional_parameters=more)
        per_node = self.processes // self.nodes
        threads = self.threads or max(1, (self.cpus or 1) // per_node)
        try:
            with executor.batch():
                jobs = [
                    executor.submit(CellJob(_patient(cell), matrix.study, threads, self.notice, self.requeue))
                    for cell in cells
                ]
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"sbatch refused the jobs: {' '.join(str(error).split())}") from error
        # submitit leaves links to what sbatch has read, and links below the folder of runs are refused
        for link in (matrix.study.folder / FOLDER).glob(".submission_file_*"):
            link.unlink()
        return {cell.name: job.job_id for cell, job in zip(cells, jobs, strict=True)}

    def _parameters(self, matrix: Matrix) -> dict[str, Any]:
        """Those of submitit that are set."""
        gpus = self.processes // self.nodes if self.gpus is None else self.gpus
        parameters = {
            "job_name": f"bench-{matrix.study.name}",
            "partition": self.partition,
            "account": self.account,
            "time": self.minutes,
            "signal_delay_s": self.notice,
            "nodes": self.nodes,
            "ntasks_per_node": 1,
            "gpus_per_node": gpus or None,
            "cpus_per_task": self.cpus,
            "mem": self.memory,
            "array_parallelism": self.jobs,
            "stderr_to_stdout": True,
            # srun does not take the CPUs over from sbatch
            "srun_args": ["--cpus-per-task", str(self.cpus)] if self.cpus else None,
        }
        return {name: value for name, value in parameters.items() if value is not None}


def _patient(cell: Cell) -> Cell:
    """The cell, waiting where another process still works on the run: one on a node that Slurm has given up, perhaps."""
    return cell if cell.words[0] != "run" else cell.with_words("--wait")


def _by_predecessor(cells: Sequence[Cell]) -> Mapping[str | None, list[Cell]]:
    """The cells by the name of the one that must be finished before, in the order of the cells."""
    groups: dict[str | None, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.after, []).append(cell)
    return groups


def _queued(matrix: Matrix) -> dict[str, str]:
    """The jobs of this study's cells that Slurm still has, by name of the cell.

    Raises:
        UserError: Slurm does not answer.
    """
    words = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i"]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    if asked.returncode:
        raise UserError(f"Slurm does not answer: {' '.join(asked.stderr.split())}")
    present = set(asked.stdout.split())
    return {name: job for name, job in matrix.study.jobs().items() if job in present}


def _options(text: str) -> dict[str, Any]:
    """``--qos=high --exclusive`` as submitit takes them.

    Raises:
        ValueError: a word is not an option.
    """
    options: dict[str, Any] = {}
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            raise ValueError(f"sbatch={text!r}: {word!r} is not of the form --option or --option=value")
        options[name.removeprefix("--")] = value if equals else True
    return options


def _check_installed() -> None:
    if shutil.which("sbatch") is None:
        raise UserError(
            "there is no sbatch on this machine; start the command where Slurm is, or use --jobs N, or --print-commands"
        )
    if importlib.util.find_spec("submitit") is None:
        raise UserError(
            "--executor slurm needs the package 'submitit', which is not installed: pip install "
            "'diffusion-alignment-bench[slurm]'"
        )
