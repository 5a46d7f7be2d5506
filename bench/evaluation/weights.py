"""Weights to be evaluated: the base model's, a finished run's, or released ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from bench.core.errors import UserError, did_you_mean
from bench.core.paths import part_like
from bench.core.values import differing
from bench.models.checkpoints.compatibility import check_fits, loaded_files
from bench.models.checkpoints.component import place_digest
from bench.models.checkpoints.released import COMPONENTS, check_encoders, check_process, find_released
from bench.models.family import ModelFamily
from bench.records.config import BASE, RELEASED, Resolved, RunConfig
from bench.records.protocol import Protocol, WeightsRecord
from bench.records.runs import RunFolder, base_folder, find_runs


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """Weights that can serve a branch of guidance.

    Attributes:
        record: how the records of evaluations describe them.
        run: the folder that their evaluations belong to, whether or not it exists yet.
        config: the configuration of that folder.
        folder: their folder or file, as `ModelFamily.load_trained` reads it; None for the base model's own weights.
        parts: of the base model, digests of its components.
    """

    record: WeightsRecord
    run: RunFolder
    config: RunConfig
    folder: Path | None
    parts: Mapping[str, str] | None = None

    @property
    def negative_scales(self) -> tuple[float, float] | None:
        """Alpha and beta of a run that trained weights for the unconditional branch; None for all other weights."""
        negative = self.config.resolved.negative
        return None if negative is None else (negative.alpha, negative.beta)

    def network(self, model: ModelFamily) -> nn.Module:
        """The denoiser; the base model's own is not copied."""
        return model.network if self.folder is None else model.load_trained(self.folder)


def base_weights(runs: Path, model: str, title: str, protocol: Protocol) -> Weights:
    """The base model's own weights, as a protocol names them with its other components."""
    config = RunConfig(model=model, algorithm=BASE, title=title, resolved=Resolved())
    record = WeightsRecord(title=title, source=BASE, digest=protocol.base_weights)
    return Weights(record, base_folder(runs, model), config, None, protocol.parts)


def run_weights(runs: Path, run: RunFolder) -> Weights:
    """The weights of a run that has finished training.

    Raises:
        UserError: they are not the ones that training ended with.
    """
    config, folder = run.config(), run.trained_weights()
    record = WeightsRecord(
        title=run.title,
        source=run.folder.resolve().relative_to(runs.resolve()).as_posix(),
        digest=place_digest(loaded_files(folder)),
        seed=config.seed,
        trained_on=config.trained_on,
    )
    return Weights(record, run, config, folder)


def released_weights(runs: Path, model: str, typed: str, name: str | None, base: ModelFamily) -> Weights:
    """Released weights: a diffusers denoiser, the denoiser of a pipeline, or adapters for it.

    Args:
        typed: a folder, a safetensors file or a hub id.
        name: what tables and their folder are called, see `bench.experiments.method.check_label`; None means the name of the
            folder, file or repository.
        base: the base model.

    Raises:
        UserError: there are no such weights, none in safetensors, or they are for another architecture or forward process.
    """
    place = find_released(typed)
    check_fits(place, base.network, model)
    check_process(place, typed, base, model)
    check_encoders(place, typed, base, model)
    own = _place_name(place) if Path(typed).exists() else typed.rpartition("/")[2]
    title = part_like(own) if name is None else name
    record = WeightsRecord(title=title, source=typed, digest=place_digest(loaded_files(place)))
    config = RunConfig(
        model=model,
        algorithm=RELEASED,
        title=title,
        name=title,
        source=typed,
        resolved=Resolved(weights=record.digest),
    )
    return Weights(record, RunFolder(runs / model / RELEASED / title), config, place)


def find_run(runs: Path, model: str, base: Weights, typed: str) -> Weights:
    """A finished run, or the base model, by its folder: absolute, or relative to ``runs`` or to the current folder.

    Raises:
        UserError: there is no such run, it is not finished, or it was trained on another model.
    """
    folder = next((folder for folder in (runs / typed, Path(typed)) if is_run(folder)), None)
    if folder is None:
        known = [run.folder.relative_to(runs).as_posix() for run in find_runs(runs)]
        raise UserError(
            f"there is no run {typed!r} under {runs}: {did_you_mean(typed, known)}name the folder of a finished run, "
            f"for example {model}/dpo/recipe/seed-0"
        )
    run = RunFolder(folder)
    config = run.config()
    if config.model != model:
        raise UserError(f"{folder} is a run on the model {config.model!r}; choose a run on {model!r}")
    if config.is_base:
        return base
    if config.resolved.training is None:
        raise UserError(f"{folder} holds evaluations of released weights; name the weights themselves: {config.source}")
    if not run.done:
        raise UserError(
            f"{folder} has not finished training (step {len(run.steps())} of {config.resolved.training.length}); "
            "finish it with its `bench run` command"
        )
    if (config.base_weights or config.resolved.init) != base.record.digest:
        raise UserError(
            f"{folder} was trained from weights {config.resolved.init}, but {model!r} has {base.record.digest}; "
            "train it again from these"
        )
    today = dict(base.parts or {})
    if files := differing(dict(config.resolved.model or today), today):
        raise UserError(
            f"{folder} was trained on {model!r} with other files, which differ in {', '.join(files)}; put the former files "
            "back, or train it again on these"
        )
    return run_weights(runs, run)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run; a diffusers component has a ``config.json`` too."""
    path = folder / "config.json"
    # Searched as text: a damaged configuration still marks a run, and the error comes when it is read.
    return path.is_file() and '"schema"' in path.read_text(encoding="utf-8", errors="replace")


def _place_name(place: Path) -> str:
    """A name for the weights at a path: its last telling part, or algorithm, name and seed for a run's weights."""
    path = place.resolve()
    run = next((RunFolder(folder) for folder in list(path.parents)[:2] if is_run(folder)), None)
    if run is not None:
        config = run.config()
        return f"{config.algorithm}-{config.name}-seed-{config.seed}"
    if path.is_file():
        return path.stem
    return path.parent.name if path.name in COMPONENTS else path.name
