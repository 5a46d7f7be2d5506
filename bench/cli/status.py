"""``bench status``: how far studies and runs are."""

from __future__ import annotations

import re
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.text import Text

from bench.core.errors import UserError, did_you_mean, listed
from bench.core.progress import duration, line, say, shortened
from bench.core.terminal import COLUMNS, Terminal

if TYPE_CHECKING:  # help texts need no records
    from bench.records.states import Kind, Progress, State
    from bench.records.studies import StudyFolder

PAUSE = 2.0
"""Seconds between two looks of ``--watch``."""
INDENT = 9
"""Columns before the name of a run, and before what is wrong with it."""
FACTS, SHORTEST_MODEL = 2, 9
"""Facts that a long name takes no room from, how far a run is and the time left; and characters of a model that stay."""
HASHES = re.compile(r"(?<=/set-[0-9a-f]{4})[0-9a-f]{4}(?:-[0-9a-f]{8})?(?=[/-])|(?<!/set)-[0-9a-f]{8}(?=[/-])")
"""The parts of hashes in a run's name that are left out where there is no room, so that algorithm and seed are kept."""
ORDER: tuple[Kind, ...] = ("running", "failed", "damaged", "waiting", "done")


def status(
    study: Annotated[
        str | None, typer.Argument(help="A study, named after its experiment file.  Default: all, and all other runs.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Refresh every two seconds, from the first run until nothing is running or waiting."
        ),
    ] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Print the commands to repeat: those that failed, one per line.")
    ] = False,
) -> None:
    """Show what is done, running, waiting and failed, with rate, time left, and the last line of what failed.

    Reads only the run folders, so it works while runs are going on, on any machine that can read them.
    """
    if failed and watch:
        raise UserError("--failed prints commands once; leave --watch out")
    if not runs.exists() and not watch:
        raise UserError(f"{runs} does not exist; give the folder of a `bench run` as --runs")
    states = _look(runs, study)
    if failed:
        console = Terminal(highlight=False, soft_wrap=True)
        for state in states:
            if state.kind == "failed" and state.cell is not None:
                console.print(state.cell.in_runs(runs).line(), markup=False)
    elif watch:
        if not runs.exists():
            say(f"{runs} does not exist yet; waiting for the first run in it")
        _watch(runs, study)
    else:
        _print(lines_of(states, COLUMNS))


def _look(runs: Path, study: str | None) -> list[State]:
    """The states of a study, or of everything in a folder, by kind."""
    from bench.records.states import states_of_runs
    from bench.records.studies import find_studies

    studies = find_studies(runs)
    if study is not None:
        names = [each.name for each in studies]
        if study not in names:
            raise UserError(
                f"there is no study {study!r} in {runs}: {did_you_mean(study, names)}there are {listed(names)}"
            )
        studies = [each for each in studies if each.name == study]
    found = {state.name: state for each in studies for state in _states_of(each)}
    if study is None:
        found |= {state.name: state for state in states_of_runs(runs, tuple(found))}
    return sorted(found.values(), key=lambda state: ORDER.index(state.kind))


def _states_of(study: StudyFolder) -> list[State]:
    """The states of a study's cells; one that says so if the list of them is damaged."""
    from bench.records.states import State, states_of_study

    try:
        return states_of_study(study)
    except UserError as error:
        return [State(study.folder.relative_to(study.runs).as_posix(), "damaged", said=str(error))]


def lines_of(states: Sequence[State], width: int) -> Iterator[str]:
    """The text of ``bench status``, line by line: one per run, what is wrong with it below, and a last one that counts them."""
    for block in _blocks_of(states, width):
        yield from block


def _blocks_of(states: Sequence[State], width: int) -> Iterator[tuple[str, ...]]:
    """The lines of each run, and the one that counts them."""
    changes = _changes(states)
    for state in states:
        yield (_line(state, changes.get(state.name, ""), width), *_wrapped(state.said, width))
    counts = Counter(state.kind for state in states)
    yield (", ".join(f"{counts[kind]} {kind}" for kind in ORDER if counts[kind]) or "there are no runs",)


def _changes(states: Sequence[State]) -> dict[str, str]:
    """The settings in which the configurations of an algorithm differ, by name of the run; of runs in studies."""
    typed = {
        state.name: [value for option, value in pairwise(state.cell.words) if option == "--set"]
        for state in states
        if state.cell is not None
    }
    common: dict[str, set[str]] = {}
    for name, settings in typed.items():
        common[_algorithm(name)] = common.get(_algorithm(name), set(settings)) & set(settings)
    return {
        name: ",".join(each for each in settings if each not in common[_algorithm(name)])
        for name, settings in typed.items()
    }


def _algorithm(name: str) -> str:
    """The model and the algorithm of a run."""
    return "/".join(name.split("/")[:-2])


def _line(state: State, changes: str, width: int) -> str:
    """One line about a run: without room hashes go first, then rate and changes, then the middle of the model's name."""
    name, facts = state.name, list(_facts(state))
    if changes:
        facts.insert(FACTS, changes)

    def excess() -> int:
        return INDENT + len("  ".join([name, *facts])) - width

    if excess() > 0:
        name = HASHES.sub("...", name)
    while excess() > 0 and len(facts) > FACTS:
        facts.pop()
    if excess() > 0:
        model, *rest = name.split("/")
        name = "/".join([shortened(model, max(SHORTEST_MODEL, len(model) - excess())), *rest])
    return line(f"{state.kind:<{INDENT}}{name}", facts, width)


def _wrapped(text: str, width: int) -> list[str]:
    indent = " " * INDENT
    return textwrap.wrap(
        text, max(width, 2 * INDENT), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _facts(state: State) -> Iterator[str]:
    progress, running = state.progress, state.kind == "running"
    if progress is None:
        yield from ("preparing",) if running else ()
        return
    total = "" if progress.total is None else f"/{progress.total:g}"
    yield f"{progress.done:g}{total} {progress.unit}"
    if not running:
        return
    if (stage := _stage(progress)) is not None:
        yield stage
    elif progress.left is not None:
        yield f"{duration(progress.left)} left"
    if progress.seconds is not None:
        yield f"{progress.seconds:.1f} s each" if progress.seconds >= 1 else f"{1 / progress.seconds:.1f}/s"


def _stage(progress: Progress) -> str | None:
    """What a running process does while the pieces that are counted stand still; None if they do not."""
    if progress.unit == "images":
        return "scoring" if progress.done == progress.total else None
    return "preparing" if not progress.done else None


def _watch(runs: Path, study: str | None) -> None:
    """On a terminal a live display; elsewhere the lines that have changed."""
    console = Terminal(highlight=False)
    states = _look(runs, study)
    if not console.is_terminal:
        shown: set[tuple[str, ...]] = set()
        while True:
            blocks = list(_blocks_of(states, COLUMNS))
            _print(each for block in blocks if block not in shown for each in block)
            shown = set(blocks)
            if not _goes_on(states):
                return
            time.sleep(PAUSE)
            states = _look(runs, study)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            lines = list(lines_of(states, min(COLUMNS, console.width - 1)))
            most = max(2, console.height - 1)  # running and failed come first; the last line counts
            kept = lines if len(lines) <= most else [*lines[: most - 1], lines[-1]]
            live.update(Text("\n".join(kept), no_wrap=True), refresh=True)
            if not _goes_on(states):
                return
            time.sleep(PAUSE)
            states = _look(runs, study)


def _goes_on(states: Sequence[State]) -> bool:
    """Whether something runs or waits; or there is nothing yet, since a study takes a moment to be planned."""
    return not states or any(state.goes_on for state in states)


def _print(lines: Iterator[str]) -> None:
    console = Terminal(highlight=False, soft_wrap=True)
    for each in lines:
        console.print(each, markup=False)
