"""``bench export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.run import DEFAULT_RUNS, Runs
from bench.cli.sentences import say
from bench.core.errors import UserError


def export(
    run: Annotated[Path, typer.Argument(help="A finished run with trainable=lora, for example sdxl/dpo/lora/seed-0")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write; no other file is overwritten.")],
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Write a run's adapters as one file in kohya's LoRA layout, which most user interfaces read.

    diffusers itself loads a run's weights/ folder directly.
    """
    from bench.models.checkpoints.adapters import export_adapters
    from bench.records.runs import RunFolder

    trained = next((found for found in (RunFolder(runs / run), RunFolder(run)) if found.done), None)
    if trained is None:
        raise UserError(
            f"{run} is not a finished run; name the folder of one, for example sdxl/dpo/lora/seed-0 under {runs}"
        )
    export_adapters(trained.trained_weights(), output)
    say(str(output), "done")
