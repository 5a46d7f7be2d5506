"""``bench plan``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.run import Budget
from bench.cli.sentences import say
from bench.core.errors import UserError
from bench.core.progress import Progress
from bench.core.terminal import Terminal
from bench.planning.gpus import GPUS, GpuSpec, find_gpus

if TYPE_CHECKING:
    from bench.experiments.configurations import Configuration
    from bench.experiments.method import Method
    from bench.experiments.plan import At
    from bench.experiments.study import Study
    from bench.models.find import FoundArchitecture
    from bench.planning.plan import Plan
    from bench.planning.sizes import Sizes
    from bench.training.algorithm import Algorithm

ALGO = "Algorithms, separated by commas; all means each that can run.  See: bench list"
MODEL = "A registered model (see: bench list), a diffusers folder, or a hub id; no weights are read."
Algo = Annotated[str, typer.Option(help=ALGO)]
Model = Annotated[str, typer.Option(help=MODEL)]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="field=value: override a field of the algorithm or of training.")
]


def plan(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[EXPERIMENT.TOML]", help="An experiment file; see: bench run --help"),
    ] = None,
    algo: Annotated[str | None, typer.Option(help=ALGO)] = None,
    model: Annotated[str | None, typer.Option(help=MODEL)] = None,
    sets: Sets = None,
    budget: Budget = None,
    card: Annotated[
        str | None,
        typer.Option(help=f"One GPU: {', '.join(GPUS)}.  Default: all.  Also says what to change if it is too small."),
    ] = None,
    utilisation: Annotated[
        float,
        typer.Option(min=0.01, max=1, help="Model FLOPs utilisation (MFU) of training; bench profile measures it."),
    ] = 0.35,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of equal GPUs that share the pairs, each with all weights (DDP, not FSDP).  Default: the file's, or 1.",
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=0, help="Evaluation images per run.  Default: those of the file's or the model's prompts, or 1,000."
        ),
    ] = None,
) -> None:
    """Estimate what runs will cost before anything is downloaded or trained: memory, operations, hours and disk space."""
    from bench.cli.options import algorithm_names, parse_budget, parse_overrides, set_once
    from bench.cli.study import read_study
    from bench.experiments.recipes import about_settings
    from bench.models.find import find_architecture
    from bench.planning.show import SMALL_NETWORKS, about_cpus, about_placebo, gpus_table, plan_table
    from bench.planning.total import PlannedModel, PlannedRuns, total_gpus_table, total_table

    typed = {
        "algorithms": None if algo is None else [{"name": each} for each in algorithm_names(algo)],
        "model": model,
        "settings": set_once("--set", parse_overrides(sets or []), budget=parse_budget(budget)),
    }
    study, at = read_study(file, {field: value for field, value in typed.items() if value})
    with at("executor"):
        shared = processes or _processes(study.executor or {})
    gpus, console = find_gpus(card), Terminal()
    models: list[PlannedModel] = []
    cpus: dict[str, None] = {}
    for each in study.model:
        with at("model"):
            found = find_architecture(each)
        found, pairs, sizes = _sized(found, study, images, at)
        with at():
            chosen = list(chosen_methods(study.configurations(), found, at, pairs))
        plans = _counted(each, found, [method for _, method in chosen], shared)
        runs = []
        for (title, method), planned in zip(chosen, plans, strict=True):
            algorithm, seeds = method.algorithm, len(study.seeds)
            twins = seeds if study.placebo and algorithm.placebo is not None else 0
            runs.append(PlannedRuns(planned, seeds, twins))
            console.print(plan_table(f"{title} on {each}", planned, sizes), "", highlight=False)
            console.print(gpus_table(planned, gpus, utilisation, sizes.images), "", highlight=False)
            console.print(
                *about_settings(method, found),
                about_placebo(title, algorithm),
                "",
                sep="\n",
                highlight=False,
                markup=False,
            )
            if card is not None:
                _advise(console, found, algorithm, planned, gpus)
        models.append(PlannedModel(sizes, runs))
        cpus[about_cpus(found.card)] = None
    console.print(total_table(models), "", highlight=False)
    console.print(total_gpus_table(models, gpus, utilisation), "", highlight=False)
    console.print(SMALL_NETWORKS, *cpus, sep="\n", highlight=False, markup=False)


def _counted(name: str, found: FoundArchitecture, methods: Sequence[Method], processes: int) -> list[Plan]:
    """The plan of each method on a model; for large networks this takes a minute or more, although they have no weights."""
    from bench.planning.plan import encoding_cost, make_plan

    plans = []
    with Progress(f"counting what {name} computes", total=1 + len(methods)) as progress:
        encoding = encoding_cost(found)
        progress.advance()
        for method in methods:
            plans.append(make_plan(found, encoding, method.algorithm, method.settings, processes=processes))
            progress.advance()
    return plans


def _advise(
    console: Terminal, found: FoundArchitecture, algorithm: Algorithm, planned: Plan, gpus: Mapping[str, GpuSpec]
) -> None:
    """Print what to change for each GPU that is too small for a run."""
    from bench.planning.evaluating import evaluating_in_bf16
    from bench.planning.plan import smaller
    from bench.planning.show import changes_table, encoding_advice, evaluating_advice

    for name, gpu in gpus.items():
        lacking = planned.lacking(gpu)
        if "encoding" in lacking:
            console.print(encoding_advice(name, planned), "", sep="\n", highlight=False)
        if "training" in lacking:
            console.print(changes_table(name, gpu, smaller(found, algorithm, planned)), "", highlight=False)
        if "evaluating" in lacking:
            in_bf16 = evaluating_in_bf16(found, planned.encoding.texts, algorithm, planned.settings)
            console.print(evaluating_advice(name, gpu, planned, in_bf16), "", sep="\n", highlight=False)


def _sized(
    found: FoundArchitecture, study: Study, images: int | None, at: At
) -> tuple[FoundArchitecture, int | None, Sizes]:
    """A model whose images are made as the study says; the most pairs that are used, None if not known; and what figures are for."""
    from bench.core.validation import build
    from bench.planning.plan import META
    from bench.planning.sizes import ASSUMED, Sizes, count_prompts, is_here, size_of_data
    from bench.prompts.sets import PROMPT_SETS

    default = found.generation or found.build(META).generation
    with at("images"):
        generation = build(type(default), {**default.model_dump(), **(study.images or {})}, "images")
    own = (None, None) if found.card is None else (found.card.data, found.card.prompts)
    wanted, asked = study.data or own[0], study.prompts or own[1]
    with at("data"):
        data = size_of_data(wanted, study.columns, study.limit)
    with at("prompts"):
        prompts = count_prompts(asked, study.limit)
    rows, captions = (ASSUMED if count is None else count for count in (data.pairs, data.captions))
    if wanted is not None and not is_here(wanted):
        say(f"{wanted} is not on this machine, so figures are for {rows:,} rows of data", "note")
    if images is None:
        images = ASSUMED if prompts is None else prompts * generation.images_per_prompt
        if asked is not None and not (asked in PROMPT_SETS or is_here(asked)):
            say(f"{asked} is not on this machine, so figures are for {images:,} evaluation images", "note")
    return dataclasses.replace(found, generation=generation), data.pairs, Sizes(rows, captions, images)


def _processes(executor: Mapping[str, Any]) -> int:
    """How many processes share a run, whether the executor is installed here or not."""
    stated = executor.get("processes", 1)
    try:
        return max(1, int(stated))
    except (ValueError, OverflowError) as error:
        raise UserError(f"executor: processes={stated!r} is not a whole number; write 1 or more") from error


def chosen_methods(
    wanted: Iterable[Configuration],
    found: FoundArchitecture,
    at: At,
    pairs: int | None,
    refuse: Callable[[Method], None] | None = None,
) -> Iterator[tuple[str, Method]]:
    """Title and method of each configuration that can run; says which of ``all`` cannot, and which settings have old names.

    Args:
        pairs: how many pairs are used at most, to which a larger batch is lowered; None if that is not known.
        refuse: raises a `UserError` if a method cannot be what it is chosen for; None if every one can.
    """
    from bench.experiments.configurations import select
    from bench.experiments.method import Method
    from bench.experiments.recipes import fit_batch, outdated_names, resolve
    from bench.experiments.requirements import check_settings
    from bench.training.algorithm import ALGORITHMS

    def checked(each: Configuration) -> Method:
        with at(*each.place):
            cls = ALGORITHMS.get(each.algorithm)
            changed = dict(each.overrides)
            algorithm, settings = resolve(each.algorithm, cls, found.recipe, changed)
            if pairs is not None:
                changed = fit_batch(cls, each.overrides, settings, pairs)
                algorithm, settings = resolve(each.algorithm, cls, found.recipe, changed)
            method = Method(each.algorithm, algorithm, settings, each.label or "", changed)
            check_settings(method)
            if refuse is not None:
                refuse(method)
        return method

    chosen, notes = select(list(wanted), checked)
    if chosen and (renamed := outdated_names(type(chosen[0][1].algorithm), chosen[0][0].overrides)):
        notes.append(renamed)
    for note in notes:
        say(note, "note")
    names = Counter(method.name for _, method in chosen)
    for each, method in chosen:
        changes = ", ".join(f"{field}={value}" for field, value in each.overrides.items())
        told = ": ".join(filter(None, [method.label, changes if names[method.name] > 1 else ""]))
        yield f"{method.name} ({told})" if told else method.name, method
