"""What ``bench run`` does with a study: from a file and what was typed to runs, commands or another file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from bench.cli.options import parse_overrides, set_once
from bench.cli.sentences import say
from bench.core.errors import UserError
from bench.core.validation import build
from bench.core.values import digest
from bench.experiments.executors.base import Executor, Matrix, make_executor
from bench.experiments.matrix import cells_of, plan_study
from bench.experiments.plan import At, Plan, nowhere
from bench.experiments.study import Study
from bench.experiments.study_file import StudyFile
from bench.experiments.study_text import toml_text, write_study
from bench.records.studies import StudyFolder, study_of_file
from bench.training.trackers import check_trackers

NEEDED: Mapping[str, str] = {"algorithms": "--algo", "model": "--model"}
"""What a command without an experiment file must have."""


def executor_settings(
    name: str | None, jobs: int | None, resources: Sequence[str] | None, *, print_commands: bool = False
) -> dict[str, Any]:
    """``--executor``, ``--jobs``, ``--resource`` and ``--print-commands`` as an experiment file states them; ``--jobs`` alone means local.

    Raises:
        UserError: a resource is not of the form field=value, one is set twice, or two options name an executor.
    """
    if print_commands and name is not None:
        raise UserError(f"--print-commands and --executor {name} both say what becomes of the runs; use one of them")
    stated = set_once(
        "--resource",
        parse_overrides(resources or [], option="--resource", example="processes=8"),
        executor={} if name is None else {"name": name},
        print_commands={"name": "print"} if print_commands else {},
        jobs={} if jobs is None else {"jobs": jobs},
    )
    return stated if jobs is None else {"name": "local", **stated}


def run_study(file: Path | None, typed: Mapping[str, Any], save: Path | None) -> None:
    """Plan a study, then run it, hand it to its executor, or write it to a file.

    Args:
        file: an experiment file; None means that everything was typed.
        typed: fields of `Study` that were typed, and the ``label`` of all algorithms of the file.
        save: the experiment file to write instead of starting anything.

    Raises:
        UserError: something does not exist, is not allowed, or does not fit together.
        typer.Exit: a cell failed; exit code 1.
    """
    study, at = read_study(file, typed)
    with at("executor"):
        executor = None if study.executor is None else make_executor(study.executor)
    with at("track"):
        check_trackers(study.track or ())
    plans = plan_study(study, at)
    main = plans[0].experiment.accelerator.is_main_process
    for note in dict.fromkeys(note for plan in plans for note in plan.notes) if main else ():
        say(note, "note")
    if save is not None:
        write_study(study, save)
        say(f"wrote {save}; to start it: bench run {shlex.quote(str(save))}")
        return
    cells = cells_of(study, plans, 1 if executor is None else executor.processes)
    typed_name = f"typed-{digest(study.model_dump(mode='json'))[:8]}"
    folder = study_of_file(Path(study.runs), file) if file else StudyFolder(Path(study.runs), typed_name)
    if main and (file or executor):
        folder.write(toml_text(study), cells, file)
    if executor is None:
        _run_here(plans, study)
    else:
        _hand_over(executor, Matrix(cells, folder))
    if main and (executor is None or executor.waits):
        say("bench report" if study.runs == "runs" else f"bench report --runs {shlex.quote(study.runs)}", "compare")


def read_study(file: Path | None, typed: Mapping[str, Any]) -> tuple[Study, At]:
    """The study of an experiment file and what was typed, and where its values stand.

    Args:
        file: the experiment file; None means that everything was typed.
        typed: fields of `Study`; of a file also the ``label`` of all its algorithms.

    Raises:
        UserError: a field is missing, unknown or not allowed.
    """
    if file is not None:
        stated = StudyFile(file)
        return stated.study(typed), stated.at
    if missing := [option for field, option in NEEDED.items() if field not in typed]:
        raise UserError(
            f"{' and '.join(missing)} missing; give {'it' if len(missing) == 1 else 'them'}, or an experiment file"
        )
    return build(Study, typed, "bench run"), nowhere


def _run_here(plans: Sequence[Plan], study: Study) -> None:
    """One run after another, in this process."""
    for plan in plans:
        for result in plan.start(sys.argv[1:], study.track or (), wait=study.wait):
            if plan.experiment.accelerator.is_main_process:
                say(str(result.folder), "done")


def _hand_over(executor: Executor, matrix: Matrix) -> None:
    """Let the executor start the cells, and say which of them failed."""
    if failed := executor.start(matrix):
        runs = matrix.study.runs
        where = "" if str(runs) == "runs" else f" --runs {shlex.quote(str(runs))}"
        say(
            f"{len(failed)} of {len(matrix.cells)} commands failed; see why with: bench status{where}, and repeat those of: "
            f"bench status --failed{where}",
            "error",
            "bold red",
        )
        raise typer.Exit(1)
