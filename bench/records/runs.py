"""The run folder: everything a report needs, nothing else.

runs/<model>/base/                                   the model as it is, judged once per protocol
runs/<model>/<algorithm>/<name>/seed-<n>/            one training run
    config.json        what was typed and what it resolved to
    environment.json   packages, device, processes, git, and settings that do not change what comes out
    prepared.json      what the algorithm's `prepare` did, if anything
    train.jsonl        one line per step
    curve.json         what was measured of images of training prompts, if anything
    curve.jsonl        one line per measured step
    checkpoints/       the newest state, safetensors
    rounds/<n>/        of training in rounds, each round's pairs, log, ledger, weights and DONE
    weights/           the trained network, loads in diffusers
    ledger.json        what it cost
    evaluations/<protocol signature>/                 the run's own result
        protocol.json  variant.json  metrics.json  prompts.json  in_training.json  images/  scores.jsonl  DONE
    evaluations/<protocol>-<variant signature>/       the same weights under other guidance, see `bench eval`
    DONE
runs/<model>/weights/<name>/                         released weights: evaluations only

``DONE`` marks finished work and lists its files with their sizes and SHA-256, which are checked where the files are read.

``variant.json`` says how the sampling departs from the protocol's; usually it does not, and the file is absent.  The
run's own result has one if the run trained negative weights, which never generate an image alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench.core.errors import UserError
from bench.core.files import keep_lines, read_json, read_lines, sweep, write_json
from bench.core.locks import exclusive
from bench.core.manifest import Manifest
from bench.core.paths import unlinked
from bench.core.values import digest
from bench.records.config import BASE, RunConfig
from bench.records.curve import CurveLine, CurveRecord
from bench.records.evaluations import DONE, PROTOCOL, Evaluation
from bench.records.lines import LedgerRecord, StepLine, checked_ledger, checked_steps
from bench.records.migrations import SCHEMA, migrated
from bench.records.protocol import Variant
from bench.records.reading import (
    check_complete,
    check_listed,
    checked_path,
    damaged,
    read_manifest,
    read_record,
    read_whole,
    validated,
)

CACHE = ".cache"
"""Folder beside the models' folders: what all runs share."""
CONFIG, ENVIRONMENT, PREPARED, LEDGER = "config.json", "environment.json", "prepared.json", "ledger.json"
TRAIN_LOG, CURVE, CURVE_LOG = "train.jsonl", "curve.json", "curve.jsonl"
RECORDS = (CONFIG, ENVIRONMENT, PREPARED, TRAIN_LOG, CURVE, CURVE_LOG, LEDGER)
"""Files of a run besides its weights, evaluations and manifest."""
NOTES = (ENVIRONMENT, PREPARED)
"""Those of them that are for people."""
EVALUATIONS, CHECKPOINTS, LOCK = "evaluations", "checkpoints", ".lock"

ROUNDS = "rounds"
"""In the folder of a run in rounds: a folder for each round, by its number."""
CANDIDATES = "candidates"
"""In the folder of a round while its images are made."""
REWARD = "reward"
"""In the folders of a run whose rounds fit their judge, and of its rounds: the reward model."""


class RunFolder:
    """One training run, or the base model, on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / CHECKPOINTS
        self.weights = folder / "weights"
        self.train_log = folder / TRAIN_LOG
        self._done = folder / DONE

    @property
    def done(self) -> bool:
        """Whether training has finished (always, for the base model)."""
        return self._done.exists()

    @property
    def has_digests(self) -> bool:
        """Whether its manifest lists its files; those of older versions are empty, and the base model may have none."""
        return not self.done or read_manifest(self._done) is not None

    def check_complete(self) -> None:
        """Check that every file of the finished run is there with its size, and that no record was changed.

        Raises:
            UserError: one is not.
        """
        check_complete(self._done)

    def trained_weights(self) -> Path:
        """The folder of the finished run's weights, whose files are those that training ended with.

        Raises:
            UserError: they are not.
        """
        check_listed(self._done, *self.weight_files())
        return self.weights

    def weight_files(self) -> list[Path]:
        """The files of the finished run's weights: those that its manifest lists, or all of an older version's."""
        if (manifest := read_manifest(self._done)) is None:
            return [path for path in self.weights.rglob("*") if path.is_file()]
        return [self.folder / name for name in manifest.files if name.startswith(f"{self.weights.name}/")]

    def weights_digest(self) -> str | None:
        """Digest of the weights that its evaluations are of; None of an unfinished run, and of one of an older version.

        It is taken from the manifest, without reading the weights.
        """
        config = self.config()
        if not config.is_trained:
            return config.resolved.weights or BASE
        manifest = read_manifest(self._done)
        if manifest is None:
            return None
        return digest({name: each for name, each in manifest.files.items() if name.startswith(f"{self.weights.name}/")})

    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            UserError: the file is damaged, or a newer version of the record format wrote it.
        """
        path = self._checked(CONFIG)
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

    def check_notes(self) -> None:
        """Check the records that no table uses: JSON objects, of a trained run as the manifest says.

        Raises:
            UserError: one is not.
        """
        trained = self.config().is_trained
        for name in NOTES:
            path = self._checked(name) if trained else self.folder / name
            if path.exists():
                read_record(dict[str, object], path)

    def ledger(self) -> LedgerRecord | None:
        """What the run cost; None for the base model.

        Raises:
            UserError: the file is damaged, or counts other pairs than the training log.
        """
        path = self._checked(LEDGER)
        return checked_ledger(read_whole(read_json, path), self.steps(), path) if path.exists() else None

    def steps(self) -> list[StepLine]:
        """Lines of ``train.jsonl``.

        Raises:
            UserError: the file is damaged, or a step is missing.
        """
        path = self._checked(TRAIN_LOG)
        return checked_steps(read_whole(read_lines, path), path)

    def curve(self) -> tuple[CurveRecord, list[CurveLine]] | None:
        """What was measured along the training; None if nothing was.

        Raises:
            UserError: a file is damaged.
        """
        path, log = self._checked(CURVE), self._checked(CURVE_LOG)
        if not path.exists():
            return None
        return read_record(CurveRecord, path), validated(list[CurveLine], read_whole(read_lines, log), log)

    def keep_steps(self, count: int) -> None:
        """Cut the training log to the steps before a checkpoint; what a crash left behind them goes.

        Raises:
            UserError: some of them are missing or damaged.
        """
        kept = checked_steps(read_whole(read_lines, self.train_log)[:count], self.train_log)
        if len(kept) < count:
            raise damaged(self.train_log, f"it has {len(kept)} of the {count} steps before the checkpoint")
        keep_lines(self.train_log, kept)
        if (curve := self.curve()) is not None:
            keep_lines(self.folder / CURVE_LOG, [line for line in curve[1] if line["step"] <= count])

    def evaluation(self, signature: str) -> Evaluation:
        """The run's own result under one protocol, whether it exists yet or not."""
        return Evaluation(self.folder / EVALUATIONS / signature, self.weights_digest)

    def evaluation_of(self, signature: str, variant: Variant) -> Evaluation:
        """An evaluation under one protocol with other sampling, whether it exists yet or not."""
        return Evaluation(self.folder / EVALUATIONS / f"{signature}-{variant.signature}", self.weights_digest)

    def evaluations(self) -> list[Evaluation]:
        """All evaluations that exist, in order of their signatures."""
        begun = {path.parent for name in (PROTOCOL, DONE) for path in self.folder.glob(f"{EVALUATIONS}/*/{name}")}
        return [Evaluation(folder, self.weights_digest) for folder in sorted(begun)]

    def begin(self, config: RunConfig) -> None:
        """Write the configuration of a new run, or check that an old one has the same, up to the code.

        Of a run that has not finished, the code and what is declared of it are written again.

        Raises:
            UserError: the folder holds a run with another configuration.
        """
        path = self.folder / CONFIG
        if not path.exists():
            write_json(path, config.to_json())
            return
        known = self.config()
        known.resolved.refuse_other(config.resolved, self.folder)
        if known.seed != config.seed:
            raise UserError(
                f"{self.folder} holds the run with seed {known.seed}, not {config.seed}; move it to the folder of its own seed"
            )
        if known.resolved.code != config.resolved.code and not self.done:
            codes = (*known.same_code, *config.same_code, known.resolved.code_id)
            same = tuple(code for code in dict.fromkeys(codes) if code != config.resolved.code_id)
            write_json(path, config.model_copy(update={"same_code": same}).to_json())

    def finish(self) -> None:
        """Mark training as finished, with a manifest of the run's files as they are now."""
        records = [path for path in (self.folder / name for name in RECORDS) if path.exists()]
        weights = [path for path in self.weights.rglob("*") if path.is_file()]
        Manifest.of(self._done, [*records, *weights]).write()

    def _checked(self, name: str) -> Path:
        """The path of a file, which is as the manifest says, or absent and not listed."""
        return checked_path(self._done, name)

    @contextlib.contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the run for this process; the lock ends with the process, however it ends.

        Args:
            wait: wait for another process instead of refusing.

        Raises:
            UserError: another process works on this run, or its folder cannot be written.
        """
        advice = f"works on {self.folder}; wait for it, or give another --name or --runs"
        with exclusive(self.folder / LOCK, advice, wait=wait):
            sweep(self.folder)
            yield


def base_folder(runs: Path, model: str) -> RunFolder:
    """Where the base model's evaluations are."""
    return RunFolder(runs / model / BASE)


def surveys_folder(runs: Path) -> Path:
    """Where surveys of the images of preference data are cached; see `bench.data.survey` and, for links, `unlinked`."""
    return unlinked(runs, runs / CACHE / "surveys")


def find_runs(runs: Path) -> list[RunFolder]:
    """Every training run and base model under a folder, in order of path; runs are not nested.

    A finished run that has lost its configuration is among them: reading it says so.

    Links to folders are followed, each folder once; hidden folders hold no runs.
    """
    found, seen = [], set()
    for folder, inside, files in os.walk(runs, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inside.clear()
        elif CONFIG in files or (DONE in files and not {EVALUATIONS, "weights"}.isdisjoint(inside)):
            found.append(RunFolder(Path(folder)))
            inside.clear()
        else:
            inside[:] = sorted(name for name in inside if not name.startswith("."))
        seen.add(real)
    return sorted(found, key=lambda run: run.folder)
