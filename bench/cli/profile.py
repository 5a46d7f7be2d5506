"""``bench profile``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.plan import Algo, Model, Sets, chosen_methods
from bench.cli.sentences import say
from bench.core.errors import UserError
from bench.core.progress import Progress
from bench.core.terminal import Terminal

if TYPE_CHECKING:
    import torch

    from bench.experiments.method import Method
    from bench.models.find import FoundArchitecture


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

    from bench.cli.options import algorithm_names, parse_overrides
    from bench.core.files import write_json
    from bench.core.precision import full_precision
    from bench.experiments.configurations import Configuration
    from bench.experiments.plan import nowhere
    from bench.models.find import find_architecture
    from bench.planning.profiling import measure
    from bench.planning.show import profile_table

    full_precision()
    found, overrides = find_architecture(model), parse_overrides(sets or [])
    accelerator, figures = Accelerator(cpu=not torch.cuda.is_available()), {}
    names = algorithm_names(algo)
    wanted = [Configuration(each, overrides) for each in names]
    chosen = list(
        chosen_methods(wanted, found, nowhere, None, functools.partial(_refuse_unmeasurable, accelerator.device))
    )
    if accelerator.device.type == "cpu":
        chosen = _fitting(model, found, chosen, names)
    for name, method in chosen:
        measured = measure(found, method.algorithm, method.settings, steps, accelerator)
        figures[name] = dataclasses.asdict(measured)
        Terminal().print(profile_table(f"{name} on {model}", measured), "", highlight=False)
        if output is not None:
            write_json(output, {"model": model, "algorithms": figures})


def _refuse_unmeasurable(device: torch.device, method: Method) -> None:
    """Raise the `UserError` about a method that cannot be measured on a device, whatever its size."""
    from bench.planning.profiling import refuse_online
    from bench.training.optimizers import OPTIMIZERS

    refuse_online(method.name, method.algorithm)
    OPTIMIZERS[method.settings.optimizer].refuse(device)


def _fitting(
    model: str, found: FoundArchitecture, chosen: Sequence[tuple[str, Method]], names: Sequence[str]
) -> list[tuple[str, Method]]:
    """Those that fit into main memory; says of each other one why it is left out.

    Raises:
        UserError: one whose algorithm is among ``names`` does not fit, or none does.
    """
    import torch

    from bench.planning.host import host_memory, refuse_too_large
    from bench.planning.plan import encoding_cost, make_plan

    fitting: list[tuple[str, Method]] = []
    refused: dict[str, UserError] = {}
    with Progress("no GPU: checking memory", total=len(chosen)) as progress:
        encoding = encoding_cost(found)
        for name, method in chosen:
            planned = make_plan(found, encoding, method.algorithm, method.settings, device=torch.device("cpu"))
            try:
                refuse_too_large(name, model, planned, host_memory())
                fitting.append((name, method))
            except UserError as error:
                if method.name in names:
                    raise
                refused[name] = error
            progress.advance()
    for name, why in refused.items():
        say(f"{name} is left out: {why}", "note")
    if not fitting:
        raise next(iter(refused.values()))
    return fitting
