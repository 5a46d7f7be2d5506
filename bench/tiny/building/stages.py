"""Stages of a build: each is made once, in one piece, and again only when what it is made from has changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.files import make_folder, replace_folder, write_json
from bench.core.values import digest

RECORD = "stage.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where a stage finds and leaves files.

    Attributes:
        inputs: the finished folders of the stages that it needs, by name.
        output: an empty folder for the result, renamed into place once the stage returns.
        state: unfinished work, which is found again after an interruption.
        cache: what several stages share and can make again at any time.
    """

    inputs: Mapping[str, Path]
    output: Path
    state: Path
    cache: Path


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One part of the build.

    Attributes:
        name: also the name of its folder.
        make: writes the result into ``Places.output``; continues what it finds in ``Places.state``.
        recipe: JSON values that decide the result, beside the needed stages.
        steps: how long it is trained.  Unlike the recipe, it can change while the stage is unfinished.
        needs: earlier stages.
    """

    name: str
    make: Callable[[Places], None]
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    steps: int = 0
    needs: Sequence[str] = ()


def run_stages(stages: Sequence[Stage], work: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """Make the stages in order, skipping those whose inputs are unchanged; returns their folders by name.

    Raises:
        UserError: a stage was begun, but not finished, from other inputs.
    """
    done: dict[str, Path] = {}
    for stage in stages:
        needed = {name: done[name] for name in stage.needs}
        begun = digest([dict(stage.recipe), {name: _record(folder)["output"] for name, folder in needed.items()}])
        made = digest([begun, stage.steps])
        if _record(work / stage.name).get("inputs") == made:
            say(f"{stage.name}: there already")
        else:
            say(f"{stage.name}: begins")
            state = _open_state(work / "state" / stage.name, begun)
            _make(stage, needed, work, made)
            shutil.rmtree(state)
        done[stage.name] = work / stage.name
    return done


def _make(stage: Stage, needed: Mapping[str, Path], work: Path, inputs: str) -> None:
    def write(partial: Path) -> None:
        stage.make(Places(needed, partial, work / "state" / stage.name, work / "cache"))
        write_json(partial / RECORD, {"inputs": inputs, "output": folder_digest(partial)})

    replace_folder(work / stage.name, write)


def _open_state(state: Path, begun: str) -> Path:
    """The folder of unfinished work, which belongs to one recipe with one set of needed stages."""
    mark = state / "begun.json"
    if mark.exists() and json.loads(mark.read_text(encoding="utf-8")) != begun:
        raise UserError(
            f"{state} holds unfinished work of another recipe, or from other inputs; go back to that recipe, "
            "or delete the folder to start this stage again"
        )
    make_folder(state)
    write_json(mark, begun)
    return state


def _record(folder: Path) -> dict[str, str]:
    path = folder / RECORD
    record: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return record


def folder_digest(folder: Path) -> str:
    """A digest of all files in a folder, their relative names and bytes; the stage's own record is left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return digest(
        {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    )
