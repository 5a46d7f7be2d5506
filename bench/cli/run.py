"""``bench run``, and options that it shares with other commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.data import COLUMNS
from bench.records.training import Labels

PROMPTS = "Evaluation prompts: a set (see: bench list prompts), or a text, JSON, CSV, TSV, JSON-lines or Parquet file."
DEFAULT_RUNS = Path("runs")
Runs = Annotated[Path, typer.Option(help="Folder of all runs.")]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        help="field=value: change how evaluation images are made; part of the protocol.  See: bench list images",
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Stop at a budget instead of after a number of steps: pairs=N, forwards=N or seconds=N; for online algorithms also "
        "samples=N or rewards=N."
    ),
]
SamplingSteps = Annotated[
    int | None,
    typer.Option(help="Sampling steps of the evaluation images, short for --image steps=...; it changes the protocol."),
]


def _print_schema(wanted: bool) -> None:
    from bench.experiments.study_text import schema_text

    if wanted:
        sys.stdout.write(schema_text())
        raise typer.Exit


def run(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[EXPERIMENT.TOML]",
            help="An experiment file, which states what the options would; options that are typed replace what it states.",
        ),
    ] = None,
    algo: Annotated[
        str | None,
        typer.Option(
            help="Algorithms, separated by commas; all means each that can run, and a note says which cannot, and why.  See: bench list.  An "
            "algorithm that the experiment file lists keeps the settings that it has there."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A registered model (see: bench list), a diffusers folder, or a hub id.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds, separated by commas.  Default: 0.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="field=value: override a field of the algorithm or of training.")
    ] = None,
    budget: Budget = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Preference pairs: Parquet, JSONL with image paths, HPDv2's train.json, a folder saved by datasets, or a hub "
            "id as owner/name:split."
        ),
    ] = None,
    columns: Annotated[str | None, typer.Option(help=COLUMNS)] = None,
    prompts: Annotated[str | None, typer.Option(help=PROMPTS)] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Evaluation metrics, separated by commas.  Default: the model's.")
    ] = None,
    images: Images = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            help="Guidance scale of the evaluation images, short for --image guidance_scale=...; it changes the protocol."
        ),
    ] = None,
    sampling_steps: SamplingSteps = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train in N rounds, each on pairs of images by the weights of the round before, made for the data's captions and "
            "judged by --set rounds.judge=METRIC; the data's own images and labels are not used.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Start from (and regularise towards) these weights: a finished run, a local folder or .safetensors file, or a "
            "hub id; not with trainable=lora, whose file would lack them.  Default: the base model's."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of this configuration in tables and paths; with an experiment file, of each of its configurations.  Default: the recipe's name ('recipe'; 'untried', 'summarised' or "
            "'defaults' without published settings), or 'set-<hash>' if you changed settings, which tables show instead of the hash; --data, --init and --limit add a hash."
        ),
    ] = None,
    evaluate_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Score images of 16 training prompts, or of captions held out from training by algorithms that sample, every N "
            "steps, for the report's curves; does not change the weights.",
        ),
    ] = None,
    stop_when: Annotated[
        str | None,
        typer.Option(
            help="overoptimised: stop when the training reward is up while most held-out judges are down on the images of "
            "--evaluate-every.  Off by default."
        ),
    ] = None,
    same_code: Annotated[
        bool,
        typer.Option(
            "--same-code",
            help="Declare that code which changed since earlier seeds, or since an interruption, gives the same results; tables "
            "say so.",
        ),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="If another command works on the same run, wait for it instead of stopping with an error."
        ),
    ] = False,
    placebo: Annotated[
        bool,
        typer.Option(
            "--placebo",
            help="Add to every run its placebo: the same seed and settings on shuffled preferences, named NAME-placebo.  What a "
            "run gains over its placebo is what the preferences did.",
        ),
    ] = False,
    labels: Annotated[
        Labels | None,
        typer.Option(
            help="shuffled trains the placebo alone: winner and loser of each pair are swapped with probability 1/2, labels and "
            "scores included.  Default: as given."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=2, help="Trial: use only the first N evaluation prompts and training pairs; tables say so."),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            help="Where runs are started: local, slurm, print or a plug-in's.  Default: one after another, in this process."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at the same time; without --executor, on this machine (local).")
    ] = None,
    resources: Annotated[
        list[str] | None,
        typer.Option("--resource", help="field=value: a setting of the executor, for example processes=8."),
    ] = None,
    print_commands: Annotated[
        bool,
        typer.Option(
            "--print-commands",
            help="Print one command per run, for any scheduler, and start nothing.  The study is registered: bench status shows its "
            "runs as waiting until runs/.studies/NAME is deleted.",
        ),
    ] = False,
    track: Annotated[
        str | None,
        typer.Option(
            help="Trackers, separated by commas, that get every line of train.jsonl, scores and sample images: tensorboard, wandb, "
            "trackio, mlflow, swanlab.  They change no result."
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write this command as an experiment file instead of starting it.")
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of all runs.  Default: runs.")] = None,
    _schema: Annotated[
        bool,
        typer.Option(
            "--schema", callback=_print_schema, is_eager=True, help="Print the JSON Schema of experiment files."
        ),
    ] = False,
) -> None:
    """Train algorithms from the same weights on the same pairs, and evaluate them under one protocol.

    Safe to re-run: finished work is skipped, interrupted work resumes.
    """
    from bench.cli.options import (
        algorithm_names,
        image_settings,
        parse_budget,
        parse_columns,
        parse_overrides,
        parse_seeds,
        set_once,
        split_names,
        stop_settings,
    )
    from bench.cli.study import executor_settings, run_study

    settings = set_once(
        "--set",
        parse_overrides(sets or []),
        budget=parse_budget(budget),
        stop_when=stop_settings(stop_when, evaluate_every),
        evaluate_every={} if evaluate_every is None or stop_when else {"evaluate_every": str(evaluate_every)},
        labels={} if labels is None else {"labels": labels},
        rounds={} if rounds is None else {"rounds.number": str(rounds)},
    )
    named = {} if name is None else {"label": name}
    typed = {
        "algorithms": None if algo is None else [{"name": each, **named} for each in algorithm_names(algo)],
        "label": name if algo is None else None,
        "model": model,
        "seeds": None if seeds is None else parse_seeds(seeds),
        "settings": settings,
        "data": data,
        "columns": parse_columns(columns),
        "prompts": prompts,
        "metrics": None if metrics is None else split_names(metrics, "--metrics"),
        "images": image_settings(images, guidance_scale=guidance_scale, sampling_steps=sampling_steps),
        "init": init,
        "limit": limit,
        "placebo": placebo,
        "same_code": same_code,
        "wait": wait,
        "runs": None if runs is None else str(runs),
        "track": None if track is None else split_names(track, "--track"),
        "executor": executor_settings(executor, jobs, resources, print_commands=print_commands),
    }
    run_study(file, {field: value for field, value in typed.items() if value}, save)
