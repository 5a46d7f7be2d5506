"""How a command ends: what is printed last, and the exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import typer

from bench.cli.sentences import say
from bench.core import launched, ranks, termination
from bench.core.errors import UserError
from bench.core.escaping import visible
from bench.core.hub_environment import wrong_environment
from bench.core.peers import AGAIN
from bench.core.resources import sentence_about

STOPPED: Mapping[Any, str] = {129: "SIGHUP", 130: "Ctrl-C", 143: "SIGTERM"}
"""What stopped the command, by exit code; typer turns KeyboardInterrupt into 130."""
ClickException = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What typer raises for a command that was mistyped; typer has no public name for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a command ends that the user or the machine ended.

    Attributes:
        code: the exit code.
        sentence: what happened and what to do.
        refused: whether it is an error.
    """

    code: int
    sentence: str
    refused: bool = True


def ending_of(error: BaseException) -> Ending | None:
    """How an error ends a command; None for an error of the program, whose traceback is shown."""
    if isinstance(error, UserError):
        return Ending(2, str(error))
    if isinstance(error, SystemExit):
        return _stopped(error.code) if error.code in STOPPED else None
    if (wrong := wrong_environment(error)) is not None:
        return Ending(2, "; ".join(wrong))
    sentence = sentence_about(error)
    if sentence is not None and isinstance(error, (OSError, MemoryError, ImportError, RuntimeError)):
        return Ending(2, sentence)
    # The signal may end other processes first, and waiting for them then fails in this one with torch's RuntimeError.
    if isinstance(error, RuntimeError) and termination.requested() and ranks.count() > 1:
        return _stopped(termination.exit_code())
    return None


def _stopped(code: Any) -> Ending:
    return Ending(code, f"stopped by {STOPPED[code]}; run the same command to resume", refused=False)


def finish(error: BaseException) -> NoReturn:
    """End a command with an error, and with it the other processes of a launch, of which one prints one sentence."""
    if launched.joined():
        _finish_together(error)
    ending = ending_of(error)
    if ending is None:
        raise error
    with contextlib.suppress(OSError):  # standard error may be what is full; the exit code still says it
        if ending.refused:
            say(ending.sentence, "error", "bold red")
        else:
            say(ending.sentence)
    raise SystemExit(ending.code) from None


def _finish_together(error: BaseException) -> NoReturn:
    if isinstance(error, ClickException):
        shown = io.StringIO()
        error.show(shown)  # type: ignore[attr-defined]
        launched.end(2, shown.getvalue().rstrip(), refusal=True)
    ending, who = ending_of(error), f"process {ranks.rank()} of {ranks.count()} ended"
    if ending is None:
        where = f"in {launched.stage().title}"
        kind, lost = type(error).__name__, isinstance(error, RuntimeError) and launched.lost()
        told = visible(" ".join(str(error).split()))
        trace = "" if lost else "".join(traceback.format_exception(error))
        launched.end(1, f"{trace}error: {who} {where} ({kind}: {told}); {AGAIN}")
    sentence = visible(ending.sentence)
    if ending.refused:
        sentence = f"error: {sentence}" if ranks.rank() == 0 else f"error: {who}: {sentence}"
    launched.end(ending.code, sentence, refusal=ending.refused)
