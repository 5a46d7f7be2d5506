"""The run folder: everything a report needs, nothing else.

runs/<model>/base/                                   the model as it is, judged once per protocol
runs/<model>/<algorithm>/<name>/seed-<n>/            one training run
    config.json        what was typed and what it resolved to
    environment.json   packages, device, processes, git, and settings that do not change what comes out
    prepared.json      what the algorithm's `prepare` did, if anything
    train.jsonl        one line per step
    checkpoints/       the newest state, safetensors
    weights/           the trained network, loads in diffusers
    ledger.json        what it cost
    evaluations/<protocol signature>/                 the run's own result
        protocol.json  variant.json  metrics.json  prompts.json  in_training.json  images/  scores.jsonl  DONE
    evaluations/<protocol>-<variant signature>/       the same weights under other guidance, see `bench eval`
    DONE
runs/<model>/weights/<name>/                         released weights: evaluations only

``variant.json`` says how the sampling departs from the protocol's; usually it does not, and the file is absent.  The
run's own result has one if the run trained negative weights, which never generate an image alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.files import read_json, read_lines, write_json
from bench.core.locks import exclusive
from bench.records.config import BASE, RunConfig
from bench.records.migrations import SCHEMA, migrated
from bench.records.protocol import Protocol, Variant
from bench.records.reading import damaged, read_record, read_whole, validated
from bench.records.scores import MetricRecord

CACHE = ".cache"
"""Folder beside the models' folders: what all runs share."""


class Evaluation:
    """Images and scores of one set of weights under one protocol."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.scores = folder / "scores.jsonl"

    @property
    def done(self) -> bool:
        """Whether every image has every score."""
        return (self.folder / "DONE").exists()

    @property
    def protocol_signature(self) -> str:
        """The signature of its protocol."""
        return self.folder.name.partition("-")[0]

    @property
    def own(self) -> bool:
        """Whether it is the run's own result under the protocol."""
        return self.folder.name == self.protocol_signature

    def variant(self) -> Variant | None:
        """How its sampling departs from the protocol's; None if it does not."""
        path = self.folder / "variant.json"
        return read_record(Variant, path) if path.exists() else None

    def protocol(self) -> Protocol:
        """The protocol."""
        path = self.folder / "protocol.json"
        return read_record(Protocol, path)

    def metrics(self) -> Mapping[str, MetricRecord]:
        """The metrics with which all images are scored, by name; empty at first."""
        path = self.folder / "metrics.json"
        written = read_record(dict[str, dict[str, Any]], path) if path.exists() else {}
        named = {name: {"name": name, **metric} for name, metric in written.items()}
        return validated(dict[str, MetricRecord], named, path)

    def write_metrics(self, metrics: Mapping[str, MetricRecord]) -> None:
        """Write with which metrics all images are scored."""
        written = {name: dataclasses.asdict(metric) for name, metric in metrics.items()}
        for metric in written.values():
            del metric["name"]
        write_json(self.folder / "metrics.json", written)

    def prompts(self) -> list[str]:
        """The evaluation prompts in their order."""
        path = self.folder / "prompts.json"
        return read_record(list[str], path)

    def image(self, prompt_index: int, image_index: int) -> Path:
        """Where the image of a prompt is."""
        return self.images / f"{prompt_index:05d}-{image_index:02d}.png"

    def note_prompts_in_training(self, count: int) -> None:
        """Record how many of the prompts were captions in training."""
        if self.prompts_in_training != count:
            write_json(self.folder / "in_training.json", {"prompts": count})

    @property
    def prompts_in_training(self) -> int | None:
        """How many of the prompts were captions in training; None if that was not checked."""
        path = self.folder / "in_training.json"
        return read_record(dict[str, int], path)["prompts"] if path.exists() else None

    def score_records(self) -> list[dict[str, Any]]:
        """Lines of ``scores.jsonl``: ``prompt_index``, ``image_index``, ``metric``, ``score`` (raw), ``signature``."""
        return read_whole(read_lines, self.scores)


class RunFolder:
    """One training run, or the base model, on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.weights = folder / "weights"
        self.train_log = folder / "train.jsonl"

    @property
    def done(self) -> bool:
        """Whether training has finished (always, for the base model)."""
        return (self.folder / "DONE").exists()

    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            UserError: the file is damaged, or a newer version of the record format wrote it.
        """
        path = self.folder / "config.json"
        written = read_whole(read_json, path)
        if not isinstance(written, dict):
            raise damaged(path, "it is not a JSON object")
        if not isinstance(written.get("schema"), int):
            raise damaged(path, "schema: a whole number is required")
        config = migrated(written)
        if config is None:
            raise UserError(
                f"{self.folder} was written with record schema {written['schema']}, this version reads up to {SCHEMA}; "
                "use the version that wrote it, or another --runs folder"
            )
        return validated(RunConfig, config, path)

    @property
    def title(self) -> str:
        """What tables call the run, whatever its training seed; see `RunConfig.label`."""
        return self.config().label

    def ledger(self) -> dict[str, Any]:
        """What the run cost: the fields of `bench.training.ledger.Ledger`; empty for the base model."""
        path = self.folder / "ledger.json"
        ledger: dict[str, Any] = read_whole(read_json, path) if path.exists() else {}
        return ledger

    def steps(self) -> list[dict[str, Any]]:
        """Lines of ``train.jsonl``."""
        return read_whole(read_lines, self.train_log)

    def evaluation(self, signature: str) -> Evaluation:
        """The run's own result under one protocol, whether it exists yet or not."""
        return Evaluation(self.folder / "evaluations" / signature)

    def evaluation_of(self, signature: str, variant: Variant) -> Evaluation:
        """An evaluation under one protocol with other sampling, whether it exists yet or not."""
        return Evaluation(self.folder / "evaluations" / f"{signature}-{variant.signature}")

    def evaluations(self) -> list[Evaluation]:
        """All evaluations that exist, in order of their signatures."""
        return [Evaluation(path.parent) for path in sorted(self.folder.glob("evaluations/*/protocol.json"))]

    def begin(self, config: RunConfig) -> None:
        """Write the configuration of a new run, or check that an old one has the same, up to the code.

        Of a run that has not finished, the code and what is declared of it are written again.

        Raises:
            UserError: the folder holds a run with another configuration.
        """
        path = self.folder / "config.json"
        if not path.exists():
            write_json(path, config.to_json())
            return
        known = self.config()
        known.resolved.refuse_other(config.resolved, self.folder)
        if known.resolved.code != config.resolved.code and not self.done:
            codes = (*known.same_code, *config.same_code, known.resolved.code_id)
            same = tuple(code for code in dict.fromkeys(codes) if code != config.resolved.code_id)
            write_json(path, config.model_copy(update={"same_code": same}).to_json())

    def finish(self) -> None:
        """Mark training as finished."""
        (self.folder / "DONE").touch()

    @contextlib.contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the run for this process; the lock ends with the process, however it ends.

        Args:
            wait: wait for another process instead of refusing.

        Raises:
            UserError: another process works on this run, or its folder cannot be written.
        """
        advice = f"works on {self.folder}; wait for it, or give another --name or --runs"
        with exclusive(self.folder / ".lock", advice, wait=wait):
            yield


def base_folder(runs: Path, model: str) -> RunFolder:
    """Where the base model's evaluations are."""
    return RunFolder(runs / model / BASE)


def surveys_folder(runs: Path) -> Path:
    """Where surveys of the images of preference data are cached; see `bench.data.survey`."""
    return runs / CACHE / "surveys"


def find_runs(runs: Path) -> list[RunFolder]:
    """Every training run and base model under a folder, in order of path; runs are not nested.

    Links to folders are followed, each folder once; hidden folders hold no runs.
    """
    found, seen = [], set()
    for folder, inside, files in os.walk(runs, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inside.clear()
        elif "config.json" in files:
            found.append(RunFolder(Path(folder)))
            inside.clear()
        else:
            inside[:] = sorted(name for name in inside if not name.startswith("."))
        seen.add(real)
    return sorted(found, key=lambda run: run.folder)
