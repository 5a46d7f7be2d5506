"""``python -m bench.tiny.build``: build every asset of the tiny world from nothing.

Every stage is made once and continues where it was stopped; the same command again goes on.  The figures that the parts
reached are in ``quality.json``.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.core.errors import UserError
from bench.core.files import make_folder, replace_folder, write_json
from bench.core.terminal import Terminal
from bench.models.checkpoints.pipeline_folder import quiet
from bench.tiny import voters, world
from bench.tiny.building import (
    autoencoder,
    checking,
    denoiser,
    distortion,
    latents,
    off_policy,
    pairs,
    parts,
    redrawing,
    towers,
)
from bench.tiny.building.fitting import FitSettings
from bench.tiny.building.stages import RECORD, Stage, run_stages
from bench.tiny.building.votes import SCORERS
from bench.tiny.commands import refusing

WORK = Path("build/tiny")
FILES = (
    ("preferences", "prompts.txt"), ("preferences", "tuning-prompts.txt"), ("preferences", "preferences.parquet"),
    ("preferences", "samples.png"), ("off-policy", "off-policy.parquet"),
)  # fmt: skip
"""Single files of stages that are shipped."""


def stages() -> list[Stage]:
    """All stages, in the order in which they are made."""
    shards = [denoiser.FIRST_SHARDS, denoiser.MOST_SHARDS, denoiser.STEPS_PER_SHARD]
    drawn = {"named": world.NAMED, "sizes": world.SIZES}
    denoised = {"widths": denoiser.WIDTHS, "batch": denoiser.BATCH, "shards": shards, "wrong captions": latents.WRONG_CAPTIONS,
             "empty captions": denoiser.EMPTY_CAPTIONS, "layout": denoiser.LAYOUT, **drawn}  # fmt: skip
    first, second, flow = (
        {**denoised, "scheduler": [phase.scheduler.__name__, dict(phase.config)], "late": phase.late}
        for phase in (denoiser.FIRST, denoiser.SECOND, denoiser.FLOW)
    )
    scenes = {"counts": [parts.DISTORTED_SCENES, parts.HELD_OUT], "error": distortion.LATENT_ERROR, **drawn}
    redrawn = {"count": parts.REDRAWN_SCENES, "strengths": redrawing.STRENGTHS}
    judge = {"batch": [checking.BATCH, checking.MADE], "mistakes": checking.MISTAKES}
    tower = {"batch": towers.BATCH, "naming": towers.NAMING, "wrong captions": towers.WRONG_CAPTIONS}
    vae = {"widths": autoencoder.WIDTHS, "batch": autoencoder.BATCH, "scenes": parts.AUTOENCODER_SCENES, **drawn}
    prompts = {
        **voters.RULES,
        **drawn,
        "prompts": [pairs.EVALUATION_COMBINATIONS, pairs.EVALUATION_PROMPTS, pairs.TUNING_PROMPTS],
    }
    return [
        fitted("autoencoder", parts.make_autoencoder, vae, autoencoder.SETTINGS),
        fitted("pretrained", parts.make_pretrained, first, denoiser.FIRST.settings, "autoencoder"),
        fitted("base", parts.make_base, second, denoiser.SECOND.settings, "autoencoder", "pretrained"),
        Stage("scenes", parts.make_scenes, scenes, needs=["autoencoder"]),
        Stage("redrawn", parts.make_redrawn, redrawn, needs=["base", "scenes"]),
        Stage(
            "pictures", parts.make_pictures, {"requests": [pairs.PAIRS, parts.SCORER_REQUESTS], **drawn}, needs=["base"]
        ),
        fitted("checker", parts.make_checker, judge, checking.SETTINGS, "scenes", "redrawn", "pictures"),
        fitted("clip", parts.make_clip, tower, towers.CONTRASTIVE, "scenes", "redrawn"),
        fitted("blip", parts.make_blip, tower, towers.MATCHING, "scenes", "redrawn"),
        Stage("preferences", parts.make_preferences, prompts, needs=["pictures", "checker"]),
        Stage(
            "off-policy",
            parts.make_off_policy,
            {"pairs": off_policy.PAIRS, "right": off_policy.RIGHT, **voters.RULES, **drawn},
            needs=["autoencoder", "checker"],
        ),
        *(parts.scorer_stage(name) for name in SCORERS),
        fitted("flow", parts.make_flow, flow, denoiser.FLOW.settings, "autoencoder", "base", "checker"),
    ]


def fitted(name: str, make: Any, recipe: Mapping[str, Any], settings: FitSettings, *needs: str) -> Stage:
    """A stage that is one fit; how many steps it has may change while it is unfinished."""
    without_steps = str(dataclasses.replace(settings, steps=0))
    return Stage(name, make, {**recipe, "settings": without_steps}, settings.steps, needs)


def assemble(done: Mapping[str, Path], out: Path) -> None:
    """Copy what the stages made into the layout of ``bench/tiny/assets``, with all their figures in ``quality.json``."""
    for name, folder in {"model": done["base"], "flow": done["flow"], "checker": done["checker"]}.items():
        copy_asset(folder, out / name)
    for name in SCORERS:
        copy_asset(done[name], out / "scorers" / name)
    for stage, file in FILES:
        shutil.copyfile(done[stage] / file, out / file)
    write_json(out / "quality.json", figures(done))


def figures(done: Mapping[str, Path]) -> dict[str, Any]:
    """What each finished stage measured, by its name."""
    paths = {name: folder / parts.FIGURES for name, folder in done.items()}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def copy_asset(folder: Path, target: Path) -> None:
    """Copy a stage's folder without the notes of the build."""
    leave_out = shutil.ignore_patterns(RECORD, parts.FIGURES)
    replace_folder(target, lambda partial: shutil.copytree(folder, partial, ignore=leave_out, dirs_exist_ok=True))


def wanted(every: list[Stage], names: list[str]) -> list[Stage]:
    """The named stages and all that they need, in order; all stages if none is named.

    Raises:
        UserError: there is no stage of a name.
    """
    if unknown := [name for name in names if name not in {stage.name for stage in every}]:
        raise UserError(f"there is no stage {unknown[0]!r}; there are {', '.join(stage.name for stage in every)}")
    kept = set(names) or {stage.name for stage in every}
    for stage in reversed(every):
        if stage.name in kept:
            kept |= set(stage.needs)
    return [stage for stage in every if stage.name in kept]


@refusing
def main(
    out: Annotated[Path, typer.Option(help="Where the assets go.")] = WORK / "assets",
    work: Annotated[Path, typer.Option(help="Where stages and unfinished work are kept.")] = WORK,
    stage: Annotated[list[str] | None, typer.Option(help="Make only this stage and what it needs; repeatable.")] = None,
) -> None:
    """Build the tiny world; the same command again continues."""
    console = Terminal()
    quiet()  # the libraries' progress bars: the stages show their own

    def say(line: str) -> None:
        console.print(line, highlight=False)

    done = run_stages(wanted(stages(), stage or []), work, say)
    if not stage:
        make_folder(out)
        assemble(done, out)
        say(f"the assets are in {out}")


if __name__ == "__main__":
    typer.run(main)
