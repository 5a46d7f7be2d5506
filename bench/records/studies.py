"""The folder of a study beside its runs: what it is, the cells that it consists of, and how each of them ended.

runs/.studies/<name>/
    study.toml         the experiment file with what the command line changed, resolved
    cells.json         one entry per cell: the command, and the folder that it fills
    logs/<cell>.log    what the cell's command printed, if an executor started it
    logs/<cell>.json   how its last attempt ended
"""

from __future__ import annotations

import dataclasses
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.core.files import make_folder, replace_file, write_json
from bench.core.paths import check_part, inside, unlinked
from bench.records.reading import read_record, validated

STUDIES = ".studies"
"""Folder beside the models' folders: one folder per study."""


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
        launcher = ["accelerate", "launch", "--num_processes", str(self.processes), "-m"] if self.processes > 1 else []
        return shlex.join([*launcher, "bench", *self.words])


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """The last attempt of a cell.

    Attributes:
        host: name of the machine that it runs on, or ran on.
        process: id of its process there.
        code: its exit code; None while it runs.  130 and 143 mean that a signal stopped it, and that the same command continues.
    """

    host: str
    process: int
    code: int | None = None

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as can be seen from this machine."""
        if self.code is not None or self.host != socket.gethostname():
            return False
        return Path("/proc", str(self.process)).exists()

    @property
    def failed(self) -> bool:
        """Whether it ended with an error, and not by a signal."""
        return self.code not in (None, 0, 130, 143)


class StudyFolder:
    """A study on disk.

    Args:
        runs: folder of all runs.
        name: the study's name, that of its folder.
    """

    def __init__(self, runs: Path, name: str) -> None:
        self.runs, self.name = runs, check_part(name)
        self.folder = runs / STUDIES / name

    def write(self, text: str, cells: Sequence[Cell]) -> None:
        """Write what the study is; an earlier version of it is replaced, and the logs stay.

        Args:
            text: the experiment file.
            cells: its cells.
        """
        unlinked(self.runs, self.folder)
        make_folder(self.folder)
        replace_file(self.folder / "study.toml", lambda partial: partial.write_text(text, encoding="utf-8"))
        write_json(self.folder / "cells.json", [dataclasses.asdict(cell) for cell in cells])

    def cells(self) -> list[Cell]:
        """The study's cells.

        Raises:
            UserError: the file is damaged, or a name in it leads out of the folder of runs.
        """
        path = self.folder / "cells.json"
        written: list[dict[str, Any]] = read_record(list[dict[str, Any]], path)
        cells = validated(list[Cell], written, path)
        for cell in cells:
            inside(self.runs, cell.name)
            check_part(cell.protocol)
        return cells

    def log(self, cell: Cell) -> Path:
        """Where a cell's command prints to."""
        return inside(self.folder / "logs", f"{cell.name}.log")

    def attempt(self, cell: Cell) -> Attempt | None:
        """The last attempt of a cell; None if no executor of this machine has started it."""
        path = self._attempt(cell)
        return read_record(Attempt, path) if path.exists() else None

    def record(self, cell: Cell, process: int, code: int | None = None) -> None:
        """Record an attempt of this machine: when it begins, and when it has ended.

        Args:
            cell: the cell.
            process: id of its process.
            code: the exit code; None when it begins.
        """
        write_json(self._attempt(cell), dataclasses.asdict(Attempt(socket.gethostname(), process, code)))

    def _attempt(self, cell: Cell) -> Path:
        return inside(self.folder / "logs", f"{cell.name}.json")


def find_studies(runs: Path) -> list[StudyFolder]:
    """Every study of a folder of runs, in order of name."""
    return [StudyFolder(runs, path.parent.name) for path in sorted(runs.glob(f"{STUDIES}/*/cells.json"))]
