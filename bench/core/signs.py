"""Signs of life that processes of one launch post for each other, and the stages of work that they name in them."""

from __future__ import annotations

import dataclasses
import enum
import os
import platform
from pathlib import Path

from bench.core.errors import UserError
from bench.core.inputs import read_text


class Stage(enum.Enum):
    """What a process works on, and for how many seconds the others may wait for it."""

    PREPARATION = ("preparation", 7 * 24 * 3600)
    TRAINING = ("training", 2 * 3600)
    EVALUATION = ("evaluation", 6 * 3600)
    SCORING = ("scoring", 6 * 3600)

    def __init__(self, title: str, seconds: int) -> None:
        self.title, self.seconds = title, seconds


LONGEST_WORK = max(stage.seconds for stage in Stage if stage is not Stage.PREPARATION)


@dataclasses.dataclass(frozen=True, slots=True)
class Sign:
    """A sign of life.

    Attributes:
        number: counts them.
        stage: what the process works on.
        meetings: how often it has come to a point where it needs the others.
        host: on which machine and in which container it is.
        pid: its id there.
        left: whether it has ended without an error.
    """

    number: int
    stage: str
    meetings: int
    host: str
    pid: int
    left: bool

    def gone(self, host: str) -> bool:
        """Whether the process is known not to run any more; of one on another machine only it itself can say so."""
        if self.left or self.host != host:
            return self.left
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


UNSEEN = Sign(-1, Stage.PREPARATION.name, -1, "", 0, False)
"""Of a process that has not joined yet."""


def here() -> str:
    """This machine and the container in it, within which ids of processes mean the same."""
    try:
        boot = read_text(Path("/proc/sys/kernel/random/boot_id")).strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except (OSError, UserError):
        return platform.node()
