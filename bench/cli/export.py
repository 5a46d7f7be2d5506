"""``bench export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.run import DEFAULT_RUNS, Runs
from bench.cli.sentences import say
from bench.core.errors import UserError

if TYPE_CHECKING:  # help texts need no records
    from bench.records.runs import RunFolder


def export(
    run: Annotated[Path, typer.Argument(help="A finished run, for example sdxl/dpo/lora/seed-0")],
    output: Annotated[
        Path,
        typer.Argument(
            help="The file to write: .safetensors, or .md with --card.  A file that holds something else is not overwritten."
        ),
    ],
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Write a model card instead: protocol, table, data and cost, with the metadata that the hub reads.",
        ),
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="With --card: also upload the card and the run's weights to this repository of the hub; a new one is private.",
        ),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="With --card: signature of the protocol of the table, if there are several.")
    ] = None,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Write a run's adapters as one file in kohya's LoRA layout, which most user interfaces read; or a model card.

    diffusers itself loads a run's weights/ folder directly.
    """
    from bench.records.runs import RunFolder

    if not card and (push or protocol):
        raise UserError("--push and --protocol are about the model card; add --card")
    trained = next((found for found in (RunFolder(runs / run), RunFolder(run)) if found.done), None)
    if trained is None:
        raise UserError(
            f"{run} is not a finished run; name the folder of one, for example sdxl/dpo/lora/seed-0 under {runs}"
        )
    if card:
        _write_card(trained, output, push, protocol)
        return
    from bench.models.checkpoints.adapters import export_adapters

    export_adapters(trained.trained_weights(), output)
    say(str(output), "done")


def _write_card(run: RunFolder, output: Path, push: str | None, protocol: str | None) -> None:
    """Write the model card of a run, and upload it with the weights if that was asked for."""
    from bench.core.files import replace_file
    from bench.core.hub import HUB_ID, push_to_hub
    from bench.core.inputs import read_text
    from bench.models.registry import MODELS
    from reports.card import model_card

    if output.suffix != ".md":
        raise UserError(f"{str(output)!r} must end in .md")
    config = run.config()
    if not config.is_trained:
        raise UserError(f"{run.folder} was not trained here; a card describes a training run")
    source = MODELS.get(config.model).source if config.model in MODELS else ""
    text = model_card(run, protocol=protocol, base=source if HUB_ID.fullmatch(source) else None)
    if output.exists() and (not output.is_file() or read_text(output) != text):
        raise UserError(f"{output} exists and is not this card; choose another file, or delete it")
    replace_file(output, lambda partial: partial.write_text(text, encoding="utf-8"))
    say(str(output), "done")
    if push is not None:
        weights = run.trained_weights()
        files = {path.relative_to(weights).as_posix(): path for path in weights.rglob("*") if path.is_file()}
        say(push_to_hub(push, {**files, "README.md": output}, f"{config.label}, seed {config.seed}"), "done")
