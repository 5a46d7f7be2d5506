"""``bench reward``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.data import COLUMNS
from bench.cli.run import DEFAULT_RUNS, Runs
from bench.cli.sentences import say
from bench.records.reward_models import Part


def reward(
    scorer: Annotated[str, typer.Option(help="The metric to start from, such as pickscore.  See: bench list metrics")],
    output: Annotated[Path, typer.Option(help="Folder of the reward model; as a metric it is called fitted:FOLDER.")],
    data: Annotated[
        str | None,
        typer.Option(help="Labelled preference pairs; see --data in: bench run --help.  Default: the data of --model."),
    ] = None,
    part: Annotated[Part, typer.Option(help="Fit the head alone, or the whole scorer.")] = "head",
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 200,
    batch: Annotated[int, typer.Option(help="Pairs per step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of AdamW.")] = 1e-4,
    seed: Annotated[int, typer.Option(help="Seed of the order of the pairs.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(help="A registered model, whose checkpoint of the scorer and whose data are the defaults."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Another checkpoint of the scorer.  Default: the model's, or the published one.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help=COLUMNS)] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Trial: use only the first N pairs.")] = None,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Fit a reward model: a scorer's head, or all of it, to preference pairs.

    One in ten captions is held out; the accuracy on their pairs is printed and recorded.  Use the result like any metric, for
    example --set rewards=fitted:FOLDER.  Safe to re-run: finished work is skipped, interrupted work resumes.
    """
    from bench.cli.options import parse_columns
    from bench.core.errors import UserError
    from bench.core.files import make_folder
    from bench.core.locks import exclusive
    from bench.core.precision import this_device
    from bench.core.validation import build
    from bench.data.reading import read_preferences
    from bench.models.registry import MODELS
    from bench.records.reward_models import FitSettings
    from bench.records.runs import surveys_folder
    from bench.scoring.fitted import describe, fittable, simplest
    from bench.training.reward_fit import Request
    from bench.training.reward_model import fit_reward_model

    typed = {"part": part, "steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    settings = build(FitSettings, typed, "bench reward")
    kind = fittable(scorer)
    card = None if model is None else MODELS.get(model)
    chosen = checkpoint or (None if card is None else card.metrics.get(scorer))
    source = data or (None if card is None else card.data)
    if source is None:
        raise UserError(
            "bench reward needs preference pairs: give --data FILE, or a --model that has data of its own, such as tiny"
        )
    make_folder(output)  # before the data are read, which may take long
    pairs = read_preferences(source, parse_columns(columns), surveys_folder(runs), limit)
    with exclusive(output / ".lock", f"fits {output}; wait for it, or give another --output"):
        record = fit_reward_model(
            kind.load(chosen, device=this_device()), Request(scorer, chosen, settings, pairs, output)
        )
    say(f"fitted:{simplest(output)} {describe(record)}", "done")
