"""`python -m bench.tiny.build` with all its stages, each of which trains and draws so little that the whole takes a minute or two.

    python small_build.py WORK [KILLS]

With KILLS, a folder, the process kills itself once halfway through every piece of work that shows progress, and once at the end
of every stage before its result is in place; KILLS remembers where it has done so.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

from bench.core.progress import Progress
from bench.tiny import build
from bench.tiny.building import autoencoder as vae
from bench.tiny.building import (
    checking,
    denoiser,
    distortion,
    fitting,
    latents,
    off_policy,
    pairs,
    parts,
    redrawing,
    scorers,
    stages,
    towers,
    votes,
)

STEPS, ROWS = 4, 8


def shrink() -> None:
    """Make every stage small."""
    fitting.CHECKPOINT_SECONDS = 0.0
    for module, name in ((vae, "SETTINGS"), (checking, "SETTINGS"), (towers, "CONTRASTIVE"), (towers, "MATCHING")):
        setattr(module, name, dataclasses.replace(getattr(module, name), steps=STEPS))
    for name in ("FIRST", "SECOND", "FLOW"):
        phase = getattr(denoiser, name)
        setattr(denoiser, name, dataclasses.replace(phase, settings=dataclasses.replace(phase.settings, steps=STEPS)))
    scorers.VOTE_EPOCHS, scorers.VOTE_BATCH = 2, 2 * ROWS
    votes.SCENE_VOTES = votes.MODEL_VOTES = 2 * ROWS
    vae.BATCH = denoiser.BATCH = checking.BATCH = towers.BATCH = ROWS
    pairs.BATCH = ROWS // 2
    checking.MADE = ROWS // 4
    latents.SHARD = denoiser.SHARD = 4 * ROWS
    redrawing.PIECE = distortion.PIECE = ROWS
    parts.AUTOENCODER_SCENES = 1024  # the scale of the latents is measured on so many
    parts.DISTORTED_SCENES, parts.REDRAWN_SCENES, parts.HELD_OUT = 4 * ROWS, 2 * ROWS, 2 * ROWS
    parts.SCORER_REQUESTS = pairs.PAIRS = off_policy.PAIRS = ROWS
    pairs.EVALUATION_PROMPTS = pairs.TUNING_PROMPTS = ROWS


def die_halfway(kills: Path) -> None:
    """Kill this process in every piece of work and at the end of every stage, unless ``kills`` says that it was done."""
    kills.mkdir(exist_ok=True)

    def die_once(where: str) -> None:
        mark = kills / where.replace(" ", "-")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    reach, make = Progress.reach, stages._make
    running: list[str] = []

    def reach_or_die(self: Progress, done: int, **figures: float) -> None:
        reach(self, done, **figures)
        if 2 * done >= self._total:
            die_once(f"{running[-1]}, {self._title}")

    def make_or_die(stage: stages.Stage, *rest: Any) -> None:
        def made(places: stages.Places) -> None:
            running.append(stage.name)
            stage.make(places)
            die_once(f"{stage.name}, its end")

        make(dataclasses.replace(stage, make=made), *rest)

    Progress.reach, stages._make = reach_or_die, make_or_die  # type: ignore[method-assign]


if __name__ == "__main__":
    shrink()
    work = Path(sys.argv[1])
    for folder in sys.argv[2:]:
        die_halfway(Path(folder))
    build.main(work / "assets", work)
