"""The folder of a study beside its runs: what it is, the cells that it consists of, and how each of them ended.

runs/.studies/<name>/
    study.toml         the experiment file with what the command line changed, resolved
    cells.json         one entry per cell: the command, and the folder that it fills
    logs/<cell>.log    what the cell's command printed, if an executor started it
    logs/<cell>.json   how its last attempt ended
    file.json          where the experiment file is, as seen from the folder of all runs
    jobs.json          ids of the jobs that a scheduler was given, by cell
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from bench.core.errors import UserError
from bench.core.files import make_folder, replace_file, write_json
from bench.core.inputs import read_text
from bench.core.paths import check_part, inside, part_like, unlinked
from bench.core.signs import here
from bench.core.strict import quoted
from bench.core.values import digest
from bench.records.reading import damaged, read_record, validated

STUDIES = ".studies"
"""Folder beside the models' folders: one folder per study."""
STOPPED = (129, 130, 143)
"""Exit codes of a command that a signal stopped: SIGHUP, Ctrl-C and SIGTERM."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One command of a study: a training run with its evaluation, or the evaluation of a base model.

    Attributes:
        name: the run's folder, relative to the folder of all runs.
        words: the arguments of ``bench``, which depend on nothing else.
        protocol: signature of the protocol under which it is evaluated.
        metrics: names of the metrics that it is evaluated with.
        after: name of the cell that has to be finished before; None if there is none.
        processes: processes that share it, started by ``accelerate launch``.
    """

    name: str
    words: tuple[str, ...]
    protocol: str
    metrics: tuple[str, ...]
    after: str | None = None
    processes: int = 1

    def line(self) -> str:
        """The command for any shell or scheduler, with quotes where a shell needs them."""
        launcher = self.launcher()
        return shlex.join([*(("accelerate", "launch", *launcher, "-m") if launcher else ()), "bench", *self.words])

    def launcher(self, machines: Sequence[str] = ()) -> tuple[str, ...]:
        """The options of ``accelerate launch``; none if one process is enough.

        Args:
            machines: options about other machines that share the cell.
        """
        if self.processes == 1:
            return ()
        # Without --multi_gpu accelerate starts a single process where there is no GPU; port 0 is any that is free.
        return ("--multi_gpu", "--num_processes", str(self.processes), *(machines or ("--main_process_port", "0")))

    def in_runs(self, runs: Path) -> Cell:
        """The same cell with another folder of all runs, for example where it has been moved to."""
        words = list(self.words)
        if "--runs" in words:
            words[words.index("--runs") + 1] = str(runs)
        return dataclasses.replace(self, words=tuple(words))

    def with_words(self, *words: str) -> Cell:
        """The same cell with further arguments of ``bench``."""
        return dataclasses.replace(self, words=(*self.words, *words))


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """The last attempt of a cell.

    Attributes:
        host: name of the machine that it runs on, or ran on.
        process: id of its process there.
        code: its exit code; None while it runs.  129, 130 and 143 mean that a signal stopped it, and that the same command continues.
        machine: `bench.core.signs.here` of the machine; empty in records of older versions.
        started: when its process started, in the kernel's ticks; None if it had ended already.
    """

    host: str
    process: int
    code: int | None = None
    machine: str = ""
    started: int | None = None

    @property
    def here(self) -> bool:
        """Whether it runs, or ran, on this machine since it started, and in this container."""
        return self.machine == here()

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as can be seen from this machine."""
        return self.code is None and self.here and self.started is not None and self.started == _started(self.process)

    @property
    def failed(self) -> bool:
        """Whether it ended with an error, and not by a signal."""
        return self.code not in (None, 0, *STOPPED)


class StudyFolder:
    """A study on disk.

    Args:
        runs: folder of all runs.
        name: the study's name, that of its folder.
    """

    def __init__(self, runs: Path, name: str) -> None:
        self.runs, self.name = runs, name
        self.folder = runs / STUDIES / name

    @property
    def file(self) -> str | None:
        """Where its experiment file is, as seen from the folder of all runs; None if it was typed.

        Raises:
            UserError: the record is damaged.
        """
        path = self.folder / "file.json"
        return read_record(str, path) if path.exists() else None

    def write(self, text: str, cells: Sequence[Cell], file: Path | None = None) -> None:
        """Write what the study is; an earlier version of it is replaced, and the logs stay.

        Args:
            text: the experiment file, resolved.
            cells: its cells.
            file: where the experiment file is; None if it was typed.
        """
        check_part(self.name)
        unlinked(self.runs, self.folder)
        make_folder(self.folder)
        replace_file(self.folder / "study.toml", lambda partial: partial.write_text(text, encoding="utf-8"))
        write_json(self.folder / "cells.json", [dataclasses.asdict(cell) for cell in cells])
        if file is not None:
            write_json(self.folder / "file.json", _seen_from(self.runs, file))

    def cells(self) -> list[Cell]:
        """The study's cells.

        Raises:
            UserError: the file is damaged, or a name in it, or the study's own, cannot be that of a folder.
        """
        check_part(self.name)
        path = self.folder / "cells.json"
        written: list[dict[str, Any]] = read_record(list[dict[str, Any]], path)
        cells = validated(list[Cell], written, path)
        for cell in cells:
            inside(self.runs, cell.name)
            for part in (*PurePosixPath(cell.name).parts, cell.protocol):
                if part != part_like(part):
                    raise damaged(path, f"the name {quoted(part)} in it cannot be that of a folder")
        return cells

    def log(self, cell: Cell) -> Path:
        """Where a cell's command prints to."""
        return inside(self.folder / "logs", f"{cell.name}.log")

    def attempt(self, cell: Cell) -> Attempt | None:
        """The last attempt of a cell; None if no executor of this machine has started it."""
        path = self._attempt(cell)
        return read_record(Attempt, path) if path.exists() else None

    def recorded_after(self, cell: Cell, path: Path) -> bool:
        """Whether a file was written after the last record of an attempt of a cell."""
        return path.stat().st_mtime_ns > self._attempt(cell).stat().st_mtime_ns

    def record(self, cell: Cell, process: int, code: int | None = None) -> None:
        """Record an attempt of this machine: when it begins, and when it has ended.

        Args:
            cell: the cell.
            process: id of its process.
            code: the exit code; None when it begins.
        """
        attempt = Attempt(socket.gethostname(), process, code, here(), _started(process))
        write_json(self._attempt(cell), dataclasses.asdict(attempt))

    def jobs(self) -> dict[str, str]:
        """Ids of the jobs that a scheduler was given last, by name of the cell.

        Raises:
            UserError: the file is damaged.
        """
        path = self.folder / "jobs.json"
        return read_record(dict[str, str], path) if path.exists() else {}

    def record_jobs(self, jobs: Mapping[str, str]) -> None:
        """Record ids of jobs, by name of the cell; earlier ones are forgotten."""
        write_json(self.folder / "jobs.json", dict(jobs))

    def _attempt(self, cell: Cell) -> Path:
        return inside(self.folder / "logs", f"{cell.name}.json")


def _started(process: int) -> int | None:
    """When a process of this machine started, which tells it from a later one of the same id; None once it has ended."""
    try:
        about = read_text(Path("/proc", str(process), "stat"), errors="replace")
    except (OSError, UserError):
        return None
    # the name before it, in parentheses, may hold anything
    state, *fields = about.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(fields[18])


def study_of_file(runs: Path, file: Path) -> StudyFolder:
    """The study of an experiment file: named after it, and after its place too if the study of another file has that name.

    Args:
        runs: folder of all runs.
        file: the experiment file.

    Raises:
        UserError: the record of the study that has the name is damaged.
    """
    place, name = _seen_from(runs, file), part_like(file.stem)
    study = StudyFolder(runs, name)
    return study if study.file in {None, place} else StudyFolder(runs, f"{name}-{digest(place)[:8]}")


def _seen_from(runs: Path, file: Path) -> str:
    return os.path.relpath(file.resolve(), runs.resolve())


def find_studies(runs: Path) -> list[StudyFolder]:
    """Every study of a folder of runs, in order of name; hidden folders hold none."""
    return [StudyFolder(runs, path.parent.name) for path in sorted(runs.glob(f"{STUDIES}/[!.]*/cells.json"))]
