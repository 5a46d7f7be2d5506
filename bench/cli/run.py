"""``bench run``, ``bench eval`` and ``bench export``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli.data import COLUMNS
from bench.core.errors import UserError

PROMPTS = "Evaluation prompts: a set (see: bench list prompts), or a text, JSON, CSV, TSV, JSON-lines or Parquet file."
Runs = Annotated[Path, typer.Option(help="Folder of all runs.")]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        help="field=value: override how evaluation images are made, a part of the protocol.  See: bench list images",
    ),
]


def run(
    algo: Annotated[str, typer.Option(help="Algorithms, separated by commas, or all.  See: bench list")],
    model: Annotated[str, typer.Option(help="A registered model (see: bench list), a diffusers folder, or a hub id.")],
    seeds: Annotated[str, typer.Option(help="Training seeds, separated by commas.")] = "0",
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="field=value: override a field of the algorithm or of training.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="pairs=N, forwards=N or seconds=N: train until so much is spent, instead of steps."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Preference pairs: Parquet, JSONL with image paths, HPDv2's train.json, a folder that datasets saved, or a hub "
            "id as owner/name:split."
        ),
    ] = None,
    columns: Annotated[str | None, typer.Option(help=COLUMNS)] = None,
    prompts: Annotated[str | None, typer.Option(help=PROMPTS)] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Metrics that judge, separated by commas; default: those of the model.")
    ] = None,
    images: Images = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Guidance of the evaluation images; --image guidance_scale=...")
    ] = None,
    sampling_steps: Annotated[
        int | None, typer.Option(help="Sampling steps of the evaluation images; --image steps=...")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Weights that training starts from and that are its reference: a finished run, or what bench eval "
            "--weights takes; default: the base model's."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of this configuration; default: recipe (untried or defaults where there is none), or a hash of what --set changed; --data and --init add theirs."
        ),
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Train algorithms from the same weights on the same pairs, and judge them under one protocol.

    The same command again continues, or finds everything done.
    """
    from bench.cli.options import (
        algorithm_names,
        check_label,
        parse_budget,
        parse_columns,
        parse_overrides,
        split_names,
    )
    from bench.experiments.experiment import Experiment
    from bench.experiments.notes import notes_on_prompts, notes_on_training
    from bench.experiments.recipes import make_method, resolve
    from bench.models.find import find_model
    from bench.training.algorithm import ALGORITHMS

    overrides = parse_overrides(sets or []) | (parse_budget(budget) if budget else {})
    names = algorithm_names(algo)
    check_label(name)
    found = find_model(model)
    for each in names:
        resolve(
            each, ALGORITHMS.get(each), found.recipe, overrides
        )  # refuses what was mistyped before anything is read
    numbers = _numbers(seeds)
    generation = _image_settings(images, guidance_scale=guidance_scale, steps=sampling_steps)
    experiment = Experiment(
        model,
        runs,
        data=data,
        prompts=prompts,
        columns=parse_columns(columns),
        init=init,
        metrics=None if metrics is None else split_names(metrics),
        generation=generation,
    )
    given = {} if init is None else {"init": experiment.init.record.digest}
    given |= {} if data is None else {"data": experiment.data.digest}
    methods = [make_method(each, found, overrides, len(experiment.data), name, **given) for each in names]
    for method in methods:
        experiment.refuse_unfit(method.name, method.algorithm, method.settings)
    notes = [
        *notes_on_prompts(experiment),
        *notes_on_training(experiment, methods),
    ]  # by every process: they read the data
    if experiment.accelerator.is_main_process:
        _print_notes(notes)
    experiment.judge_base()
    for method in methods:
        for seed in numbers:
            folder = experiment.run(method, seed, typed=sys.argv[1:]).folder
            if experiment.accelerator.is_main_process:
                Console(stderr=True).print(f"done: {folder}", highlight=False, soft_wrap=True)


def eval_(
    model: Annotated[str, typer.Option(help="A registered model.  See: bench list")],
    run: Annotated[
        str | None, typer.Option(help="A finished run to judge, for example tiny/dpo/recipe/seed-0; default: the base.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Released weights to judge: a hub id, the folder of a diffusers denoiser, of a pipeline or of a LoRA, or a "
            "safetensors file."
        ),
    ] = None,
    negative: Annotated[
        str | None,
        typer.Option(help="A run, the base's run, or what --weights takes, for the negative slot of guidance."),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the judged weights' offset in the negative slot; default: 1."),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the negative weights' offset in the negative slot; default: 1."),
    ] = None,
    guidance_scale: Annotated[
        str | None,
        typer.Option(help="Guidance, instead of the protocol's; several, separated by commas, are a sweep."),
    ] = None,
    prompts: Annotated[str | None, typer.Option(help=PROMPTS)] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Metrics that judge, separated by commas; default: those of the model.")
    ] = None,
    images: Images = None,
    sampling_steps: Annotated[
        int | None, typer.Option(help="Sampling steps of the evaluation images; --image steps=...")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What tables call --weights; default: its own name.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Judge a base model, a finished run or released weights under the protocol, with any guidance, without training.

    Each guidance scale and each negative is a row of the report.  The same command again continues, or finds everything done.
    """
    from bench.cli.options import split_names
    from bench.experiments.experiment import Experiment
    from bench.experiments.judging import Request, judge
    from bench.experiments.notes import notes_on_prompts

    scales = [] if guidance_scale is None else _scales(guidance_scale)
    generation = _image_settings(images, steps=sampling_steps)
    judges = None if metrics is None else split_names(metrics)
    experiment = Experiment(model, runs, data=None, prompts=prompts, metrics=judges, generation=generation)
    request = Request(run, weights, name, negative, alpha, beta, scales)
    if experiment.accelerator.is_main_process:
        _print_notes(notes_on_prompts(experiment))
    for evaluation in judge(experiment, request):
        if experiment.accelerator.is_main_process:
            Console(stderr=True).print(f"done: {evaluation.folder}", highlight=False, soft_wrap=True)


def export(
    run: Annotated[Path, typer.Argument(help="A finished run with trainable=lora, for example sdxl/dpo/lora/seed-0")],
    output: Annotated[Path, typer.Argument(help="File to write, .safetensors; no other file is replaced.")],
    runs: Runs = Path("runs"),
) -> None:
    """Write a run's adapters as one file in the LoRA layout that user interfaces share (kohya's).

    Plain diffusers loads a run's weights/ as they are.
    """
    from bench.models.checkpoints.adapters import export_adapters
    from bench.records.runs import RunFolder

    trained = next((found for found in (RunFolder(runs / run), RunFolder(run)) if found.done), None)
    if trained is None:
        raise UserError(f"{run} is no finished run; give its folder, for example sdxl/dpo/lora/seed-0 under {runs}")
    export_adapters(trained.weights, output)
    Console(stderr=True).print(f"done: {output}", highlight=False, soft_wrap=True)


def _image_settings(images: list[str] | None, **shorthands: float | None) -> dict[str, Any]:
    from bench.cli.options import parse_overrides

    typed = parse_overrides(images or [], option="--image", example="precision=bf16")
    short = {field: value for field, value in shorthands.items() if value is not None}
    if twice := sorted(typed.keys() & short.keys()):
        raise UserError(f"--image {twice[0]}=... and the option for {twice[0]} say the same; give one of them")
    return {**typed, **short}


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        Console(stderr=True).print(f"note: {note}", highlight=False, soft_wrap=True)


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise UserError(f"--seeds {text!r} is not a list of different whole numbers from 0 on, for example 0,1,2")
    return numbers


def _scales(text: str) -> list[float]:
    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(1 <= scale < float("inf") for scale in scales):
        raise UserError(f"--guidance-scale {text!r} is not a list of numbers from 1 on, for example 1,3,5")
    return scales
