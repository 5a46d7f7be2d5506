"""``bench plan`` and ``bench profile``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.sentences import say
from bench.core.terminal import Terminal

if TYPE_CHECKING:
    from bench.models.find import FoundArchitecture
    from bench.training.algorithm import Algorithm
    from bench.training.settings import TrainingSettings

Algo = Annotated[str, typer.Option(help="Algorithms, separated by commas, or all.  See: bench list")]
Model = Annotated[
    str,
    typer.Option(help="A registered model (see: bench list), a diffusers folder, or a hub id; no weights are read."),
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="field=value: override a field of the algorithm or of training.")
]


def plan(
    algo: Algo,
    model: Model,
    sets: Sets = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="pairs=N, forwards=N or seconds=N, of online algorithms also samples=N or rewards=N: stop at this budget instead "
            "of after a number of steps."
        ),
    ] = None,
    card: Annotated[
        str | None, typer.Option(help="One GPU, for example a100-80gb; also says what to change if it is too small.")
    ] = None,
    utilisation: Annotated[
        float,
        typer.Option(min=0.01, max=1, help="Model FLOPs utilisation (MFU) of training; bench profile measures it."),
    ] = 0.35,
    processes: Annotated[
        int,
        typer.Option(min=1, help="Number of equal GPUs that share the pairs, each with all weights (DDP, not FSDP)."),
    ] = 1,
    images: Annotated[int, typer.Option(min=0, help="Evaluation images per run.")] = 1000,
) -> None:
    """Estimate what runs will cost before anything is downloaded or trained: memory, operations, hours and disk space."""
    from bench.planning.gpus import find_gpus
    from bench.planning.plan import encoding_cost, make_plan, smaller
    from bench.planning.show import about_placebo, changes_table, encoding_advice, gpus_table, plan_table

    gpus, console = find_gpus(card), Terminal()
    found, chosen = _resolve(algo, model, sets, budget)
    encoding = encoding_cost(found)
    for name, algorithm, settings in chosen:
        planned = make_plan(found, encoding, algorithm, settings, processes=processes)
        console.print(plan_table(f"{name} on {model}", planned, images), "", highlight=False)
        console.print(gpus_table(planned, gpus, utilisation, images), "", highlight=False)
        console.print(about_placebo(name, algorithm.placebo), "", highlight=False, markup=False)
        for title, gpu in gpus.items() if card is not None else ():
            lacking = planned.lacking(gpu)
            if "encoding" in lacking:
                console.print(encoding_advice(title, planned), "", sep="\n", highlight=False)
            if "training" in lacking:
                changed = smaller(found, algorithm, planned)
                console.print(changes_table(title, gpu, changed), "", highlight=False)


def profile(
    algo: Algo,
    model: Model,
    sets: Sets = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps to time, of at most two micro-batches each.")] = 4,
    output: Annotated[Path | None, typer.Option(help="JSON file to write the figures to.")] = None,
) -> None:
    """Measure training steps with random weights on this machine: pairs per second, memory, time by phase, and utilisation.

    Without a GPU, a model that does not fit into main memory is refused.
    """
    import torch
    from accelerate import Accelerator

    from bench.core.files import write_json
    from bench.core.precision import full_precision
    from bench.planning.profiling import measure
    from bench.planning.show import profile_table
    from bench.training.optimizers import OPTIMIZERS

    full_precision()
    found, chosen = _resolve(algo, model, sets, None)
    accelerator, figures = Accelerator(cpu=not torch.cuda.is_available()), {}
    for _, _, settings in chosen:
        OPTIMIZERS[settings.optimizer].refuse(accelerator.device)
    if accelerator.device.type == "cpu":
        _refuse_too_large(model, found, chosen)
    for name, algorithm, settings in chosen:
        measured = measure(found, algorithm, settings, steps, accelerator)
        figures[name] = dataclasses.asdict(measured)
        Terminal().print(profile_table(f"{name} on {model}", measured), "", highlight=False)
    if output is not None:
        write_json(output, {"model": model, "algorithms": figures})


def _refuse_too_large(
    model: str, found: FoundArchitecture, chosen: list[tuple[str, Algorithm, TrainingSettings]]
) -> None:
    import torch

    from bench.core.progress import Progress
    from bench.planning.host import host_memory, refuse_too_large
    from bench.planning.plan import encoding_cost, make_plan

    with Progress("no GPU: checking memory", total=len(chosen)) as progress:
        encoding = encoding_cost(found)
        for name, algorithm, settings in chosen:
            planned = make_plan(found, encoding, algorithm, settings, device=torch.device("cpu"))
            refuse_too_large(name, model, planned, host_memory())
            progress.advance()


def _resolve(
    algo: str, model: str, sets: list[str] | None, budget: str | None
) -> tuple[FoundArchitecture, list[tuple[str, Algorithm, TrainingSettings]]]:
    from bench.cli.options import algorithm_names, parse_budget, parse_overrides
    from bench.experiments.recipes import outdated_names, resolve
    from bench.models.find import find_architecture
    from bench.training.algorithm import ALGORITHMS

    overrides = parse_overrides(sets or []) | (parse_budget(budget) if budget else {})
    found, names = find_architecture(model), algorithm_names(algo)
    chosen = [(each, *resolve(each, ALGORITHMS.get(each), found.recipe, overrides)) for each in names]
    if note := outdated_names(ALGORITHMS.get(names[0]), overrides):
        say(note, "note")
    return found, chosen
