"""What an executor is."""

from __future__ import annotations

import abc
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from bench.core.errors import UserError, nearest_or_all
from bench.core.progress import say
from bench.core.registry import ClassOf, Registry
from bench.core.validation import build
from bench.records.studies import Cell, StudyFolder


@dataclasses.dataclass(frozen=True, slots=True)
class Matrix:
    """The cells of a study, and where it is on disk.

    Attributes:
        cells: the commands, each after the one that it needs.
        study: the study's folder, for logs and outcomes.
    """

    cells: Sequence[Cell]
    study: StudyFolder


class Executor(BaseModel, abc.ABC):
    """Starts the cells of a study; its fields are its settings.

    Attributes:
        title: what it is, in a line.
        waits: whether `start` returns only when the cells have ended.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: ClassVar[str]
    waits: ClassVar[bool] = True

    processes: int = Field(
        default=1, ge=1, description="processes that share a cell, each with a GPU of its own (accelerate launch)"
    )

    @abc.abstractmethod
    def start(self, matrix: Matrix) -> Sequence[str]:
        """Run the cells, or hand them over to whatever runs them; finished work is skipped by the cells themselves.

        Returns:
            Names of the cells that failed.

        Raises:
            TerminatedError: a signal came, and every cell that was running has saved.
        """


EXECUTORS: Registry[type[Executor]] = Registry("bench.executors", "executor", ClassOf(Executor, title=str))
"""The registered executors by name."""


def make_executor(stated: Mapping[str, Any]) -> Executor:
    """The executor of a study.

    Args:
        stated: ``name``, and the executor's fields.

    Raises:
        UserError: there is no such executor, or a field is unknown or not allowed.
    """
    fields = dict(stated)
    if not isinstance(name := fields.pop("name", None), str):
        raise UserError(f"executor: name one of {', '.join(EXECUTORS)}")
    kind = EXECUTORS.get(name)
    if unknown := sorted(fields.keys() - kind.model_fields.keys()):
        known = list(kind.model_fields)
        raise UserError(f"executor {name} has no field {unknown[0]!r}: {nearest_or_all(unknown[0], known)}")
    return build(kind, fields, f"executor {name}")


def command(cell: Cell, machines: Sequence[str] = ()) -> list[str]:
    """A cell's command for this machine, run by the Python that runs this.

    Args:
        cell: the cell.
        machines: what ``accelerate launch`` has to know about other machines that share the cell.
    """
    launcher = cell.launcher(machines)
    return [
        sys.executable,
        *(("-m", "accelerate.commands.launch", *launcher) if launcher else ()),
        "-m",
        "bench",
        *cell.words,
    ]


def record(study: StudyFolder, cell: Cell, process: int, code: int | None = None) -> None:
    """Record an attempt, see `StudyFolder.record`; where that fails, for example on a full disk, runs go on all the same."""
    try:
        study.record(cell, process, code)
    except UserError as error:
        say(f"what `bench status` says of {cell.name} is out of date: {error}")


def outcome(cell: Cell, code: int, *, stopped: bool = False) -> int:
    """The exit code of a cell's command, as a shell shows it.

    Args:
        cell: the cell.
        code: what the process returned; negative for a signal.
        stopped: whether it was told to stop.  ``accelerate launch`` then returns 1, whatever its processes returned.
    """
    if stopped and cell.processes > 1 and code == 1:
        return 143
    return code if code >= 0 else 128 - code
