"""How far runs are, read from their folders alone: done, running, waiting or failed, without torch and in constant memory."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.core.errors import UserError
from bench.core.files import from_json
from bench.core.inputs import regular, special
from bench.core.paths import inside
from bench.core.signs import here
from bench.records.bounds import LEAST, MOST, Amount, Count
from bench.records.config import BASE, RELEASED
from bench.records.evaluations import DONE, IMAGES, METRICS, PROTOCOL
from bench.records.reading import read_record, read_whole, validated
from bench.records.runs import (
    CANDIDATES,
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    EVALUATIONS,
    LOCK,
    REWARD,
    ROUNDS,
    RunFolder,
    find_runs,
)
from bench.records.studies import Cell, StudyFolder
from bench.records.tails import TAIL, last_line, tail

Kind = Literal["running", "failed", "damaged", "waiting", "done"]
LONGEST_OWNER = 500
"""Bytes of the longest text in a lock."""
IN_ROUNDS = (
    f"{ROUNDS}/*/{CANDIDATES}/*",
    f"{REWARD}/{CHECKPOINTS}/*",
    f"{ROUNDS}/*/{REWARD}/{CHECKPOINTS}/*",
)
"""What is written between the trainings of a run in rounds, as patterns: images, and fits of the judge."""
RECENT = 120.0
"""Seconds since its last record within which a run on another machine counts as running; more for slow steps."""


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        done: pieces of work that are done.
        total: pieces of work overall; None if the records do not say.
        unit: what a piece is, in the plural.
        seconds: seconds per piece lately; None if there are too few.
    """

    done: float
    total: float | None
    unit: str
    seconds: float | None = None

    @property
    def left(self) -> float | None:
        """Seconds until `total` is reached; None if that cannot be told."""
        if self.total is None or self.seconds is None:
            return None
        return max(0.0, self.total - self.done) * self.seconds


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """The state of a run, or of another command of a study.

    Attributes:
        name: the run's folder, relative to the folder of all runs.
        kind: running, failed, damaged (a record of it cannot be read), waiting (not begun, or to be continued), or done.
        progress: how far it is; None if it has not begun, is done, or is damaged.
        said: the last line of its log, if it failed; what is damaged, if something is.
        cell: the command; None of a run that belongs to no study.
        held: whether a process works on it although it is damaged.
    """

    name: str
    kind: Kind
    progress: Progress | None = None
    said: str = ""
    cell: Cell | None = None
    held: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether the state is not the last one."""
        return self.held or self.kind in ("running", "waiting")


class _Images(BaseModel):
    images_per_prompt: Count


class _Stated(BaseModel):
    """What of ``protocol.json`` says how many images there will be."""

    prompt_count: Count
    generation: _Images


class _Environment(BaseModel):
    processes: Annotated[int, Field(ge=1, le=MOST)] = 1


class _Step(BaseModel):
    """What of a line of ``train.jsonl`` says how far training is."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, Any]

    step: Count
    seconds: Amount

    def spent(self, unit: str) -> float:
        """What has been spent of a budget; 0 if the line does not say, or says what no run spends."""
        found = self.seconds if unit == "seconds" else self.__pydantic_extra__.get(unit, 0)
        return found if isinstance(found, int | float) and LEAST <= found <= MOST else 0


def states_of_study(study: StudyFolder) -> list[State]:
    """The state of every cell of a study, in their order.

    Raises:
        UserError: the list of the cells is damaged; a run whose own records are is only `damaged`.
    """
    held = _held_locks()
    return [_state_of_cell(study, cell, held) for cell in study.cells()]


def states_of_runs(runs: Path, known: Sequence[str] = ()) -> list[State]:
    """The state of every run in a folder but those with known names and released weights, in order of path."""
    held, states = _held_locks(), []
    for run in find_runs(runs):
        name = run.folder.relative_to(runs).as_posix()
        if name not in known and not _is_released(run):
            states.append(_state_of_run(name, run, held))
    return states


def _is_released(run: RunFolder) -> bool:
    """Whether it is weights that were not trained here; what cannot be read is a run, which is then called damaged."""
    if run.folder.parent.name != RELEASED:  # runs of a configuration of that name lie in such a folder too
        return False
    try:
        return run.config().algorithm == RELEASED
    except (UserError, OSError):
        return False


def _state_of_cell(study: StudyFolder, cell: Cell, held: frozenset[tuple[int, int]]) -> State:
    run = RunFolder(inside(study.runs, cell.name))

    def look() -> State:
        attempt = study.attempt(cell)
        failed = attempt is not None and attempt.failed
        finished = run.folder / EVALUATIONS / cell.protocol / METRICS
        # What failed and was then repeated by hand is done: the study has no record of that attempt, but the scores are newer than its last one.
        if _evaluated(run, cell) and not (failed and not study.recorded_after(cell, finished)):
            return State(
                cell.name, "done", cell=cell
            )  # whoever holds it only looks at it, as every run does at its base
        progress = _progress(run, cell.protocol) if (run.folder / CONFIG).exists() else None
        seen = attempt is not None and attempt.code is None and attempt.here
        if attempt.alive if attempt is not None and seen else _works(run, progress, held):
            return State(cell.name, "running", progress, cell=cell)
        if failed:
            return State(cell.name, "failed", progress, last_line(study.log(cell)), cell)
        return State(cell.name, "waiting", progress, cell=cell)

    return _unless_damaged(look, lambda said: State(cell.name, "damaged", None, said, cell, _works(run, None, held)))


def _state_of_run(name: str, run: RunFolder, held: frozenset[tuple[int, int]]) -> State:
    def look() -> State:
        if run.done and any(run.folder.glob(f"{EVALUATIONS}/*/{DONE}")):
            return State(name, "done")
        progress = _progress(run, None)
        return State(name, "running" if _works(run, progress, held) else "waiting", progress)

    return _unless_damaged(look, lambda said: State(name, "damaged", None, said, held=_works(run, None, held)))


def _unless_damaged(look: Callable[[], State], damaged: Callable[[str], State]) -> State:
    """The state, or `damaged` where records cannot be read; one damaged run does not hide the others."""
    try:
        return look()
    except UserError as error:
        return damaged(str(error))
    except OSError as error:
        return damaged(f"{error.filename} cannot be read ({error.strerror}); look again, or allow it")


def _evaluated(run: RunFolder, cell: Cell) -> bool:
    """Whether the run is trained, and evaluated with the cell's metrics."""
    place = run.folder / EVALUATIONS / cell.protocol
    if not (run.done and (place / DONE).exists() and (place / METRICS).exists()):
        return False
    return set(cell.metrics) <= set(read_record(dict[str, Any], place / METRICS))


def _works(run: RunFolder, progress: Progress | None, held: frozenset[tuple[int, int]]) -> bool:
    """Whether a process works on a run: it holds the lock on this machine, or has written lately on another one."""
    lock = run.folder / LOCK
    if special(lock) is not None:
        return False  # no process of this program holds such a thing
    try:
        inode, text = lock.stat().st_ino, _owner(lock)
    except OSError:
        return False
    if not text:
        return False  # whoever had it has let it go
    owner, _, machine = text.partition(b" ")
    if owner.isdigit() and (inode, int(owner)) in held:
        return True
    if machine == here().encode():
        return False  # whoever had it was killed; ids of processes say nothing about other machines and containers
    patience = max(RECENT, 3 * ((progress.seconds if progress else None) or 0.0))
    return time.time() - _last_written(run) < patience


def _last_written(run: RunFolder) -> float:
    """When training, or an evaluation that is not finished, last wrote something; 0 if never."""
    try:
        unfinished = [place for place in run.folder.glob(f"{EVALUATIONS}/*") if not (place / DONE).exists()]
        paths = [
            *([] if run.done else [run.train_log, *(path for each in IN_ROUNDS for path in run.folder.glob(each))]),
            *(each for place in unfinished for each in (place, place / IMAGES)),
        ]
        return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)
    except FileNotFoundError:  # a folder or file that was listed has just been replaced or removed
        return time.time()


def _owner(lock: Path) -> bytes:
    """What stands in a lock: which process, of which machine, holds it or was killed while it did; nothing once it has ended."""
    with regular(lock).open("rb") as stream:
        return stream.read(LONGEST_OWNER).strip()


def _held_locks() -> frozenset[tuple[int, int]]:
    """Inode and process of every lock that a process of this machine holds; looking does not take any of them."""
    path = Path("/proc/locks")
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    fields = [line.split() for line in lines]
    return frozenset((int(each[5].rpartition(":")[2]), int(each[4])) for each in fields if each[1] == "FLOCK")


def _progress(run: RunFolder, protocol: str | None) -> Progress | None:
    """How far training is, or after it the evaluation, under one protocol or under the newest."""
    if run.folder.name != BASE and not run.done:
        return _training_progress(run)
    places = [path.parent for path in run.folder.glob(f"{EVALUATIONS}/{protocol or '*'}/{PROTOCOL}")]
    if not places:
        return None
    newest = max(places, key=lambda place: place.stat().st_mtime)
    stated = read_record(_Stated, newest / PROTOCOL)
    images = os.scandir(newest / IMAGES) if (newest / IMAGES).is_dir() else ()
    done = sum(1 for each in images if not each.name.startswith("."))  # one that is being written has a hidden name
    return Progress(done, stated.prompt_count * stated.generation.images_per_prompt, "images")


def _training_progress(run: RunFolder) -> Progress | None:
    lines = read_whole(lambda path: list(_last_steps(path)), run.train_log)
    training = run.config().resolved.training
    if training is None:
        return None
    done = lines[-1].step + 1 if lines else 0
    each = None
    if lines and lines[-1].step > lines[0].step:
        # Read no earlier: a run that begins writes it after its configuration.
        processes = read_record(_Environment, run.folder / ENVIRONMENT).processes
        each = (lines[-1].seconds - lines[0].seconds) / (lines[-1].step - lines[0].step) / processes or None
    total: float | None = training.all_steps
    if (budget := training.budget) is not None:
        spent = lines[-1].spent(budget.unit) if lines else 0
        total = round(done * budget.amount / spent) if spent else None
    return Progress(done, total, "steps", each)


def _last_steps(path: Path) -> Iterator[_Step]:
    """The lines at the end of a training log that are whole."""
    text = tail(path, TAIL)
    for line in text[: text.rfind("\n") + 1].splitlines()[1:] if len(text) == TAIL else text.split("\n")[:-1]:
        yield validated(_Step, from_json(line), path)
