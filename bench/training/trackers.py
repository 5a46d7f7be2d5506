"""Experiment trackers: they get what ``train.jsonl`` gets, after it is on disk, and nothing that they do reaches the run.

accelerate has a class for each service; here each runs in a thread of its own, which follows the log.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from numpy.typing import NDArray

from bench.core.errors import UserError, did_you_mean
from bench.core.files import read_lines
from bench.core.progress import say

PAUSE = 1.0
"""Seconds between two looks at the training log."""
PATIENCE, LITTLE_PATIENCE = 30.0, 3.0
"""Seconds for a tracker to finish once the run has ended, and once it was stopped, when whoever stopped it waits to kill it."""
PROJECT = "bench"
"""What a tracker's project or experiment is called."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tracked:
    """The run that is tracked.

    Attributes:
        name: its folder, relative to the folder of all runs.
        run_id: see `bench.records.config.RunConfig.run_id`.
        config: what it resolved to, as JSON values.
        folder: where trackers keep files.
    """

    name: str
    run_id: str
    config: Mapping[str, Any]
    folder: Path


def _tensorboard(run: Tracked) -> dict[str, Any]:
    return {"run_name": run.name, "logging_dir": str(run.folder / "tensorboard"), "purge_step": 0}


def _wandb(run: Tracked) -> dict[str, Any]:
    return {
        "run_name": PROJECT, "name": run.name, "id": run.run_id, "resume": "allow", "config": run.config, "dir": str(run.folder)
    }  # fmt: skip


def _trackio(run: Tracked) -> dict[str, Any]:
    return {"run_name": PROJECT, "name": run.name, "resume": "allow", "config": run.config}


def _mlflow(run: Tracked) -> dict[str, Any]:
    return {"experiment_name": PROJECT, "run_name": run.name, "tags": {"bench.run_id": run.run_id}}


def _swanlab(run: Tracked) -> dict[str, Any]:
    return {
        "run_name": PROJECT,
        "experiment_name": run.name,
        "config": run.config,
        "logdir": str(run.folder / "swanlab"),
    }


ARGUMENTS: Mapping[str, Callable[[Tracked], dict[str, Any]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
    "swanlab": _swanlab,
}
"""The arguments of accelerate's tracker of each name."""
REPLAYED = {"tensorboard"}
"""Those that forget what they had (``purge_step``) and get the whole log again when a run goes on."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed.

    Raises:
        UserError: one is.
    """
    for name in names:
        if name not in ARGUMENTS:
            raise UserError(
                f"unknown tracker {name!r}: {did_you_mean(name, ARGUMENTS)}there are {', '.join(ARGUMENTS)}"
            )
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"--track {name} needs the package {name!r}, which is not installed: pip install "
                f"'diffusion-alignment-bench[{name}]'"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        scores: mean score by metric, raw.
        images: some evaluation images, (N, H, W, 3), 0 to 255.
        step: the last step of training.
    """

    scores: Mapping[str, float]
    images: NDArray[np.uint8]
    step: int


class TrackerThread:
    """One tracker in a thread of its own, which reads what training has written; that it raises or hangs costs a sentence.

    Args:
        name: what messages call it.
        make: makes the tracker, which has accelerate's methods ``start``, ``log``, ``finish`` and perhaps ``log_images``; called
            in the thread.
        log: the training log.  Training replaces it when it begins, and appends a line after every step.
        first: steps before this one are not logged, since an earlier start has logged them.
    """

    def __init__(self, name: str, make: Callable[[], Any], log: Path, first: int) -> None:
        self._name, self._make, self._log, self._next = name, make, log, first
        self._before = _file_number(log)
        self._outcome: Callable[[], Outcome] | None = None
        self._ended, self._left_out = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def close(self, outcome: Callable[[], Outcome] | None, patience: float) -> None:
        """Let the tracker log the rest, and wait for it.

        Args:
            outcome: returns what the run came to; called in the thread.  None if it was stopped.
            patience: seconds after which it is left alone.
        """
        self._outcome = outcome
        self._ended.set()
        self._thread.join(patience)
        if self._thread.is_alive():
            self._leave_out(f"it has not finished within {patience:g} s")

    def _work(self) -> None:
        try:
            tracker = self._make()
            tracker.start()
            while not self._ended.wait(PAUSE):
                self._log_steps(tracker)
            self._log_steps(tracker)
            if self._outcome is not None:
                self._log_outcome(tracker, self._outcome())
            tracker.finish()
        except BaseException as error:  # noqa: BLE001 (a tracker may raise anything, and the run goes on)
            self._leave_out(f"{type(error).__name__}: {error}")

    def _log_steps(self, tracker: Any) -> None:
        if _file_number(self._log) in (None, self._before):
            return  # training has not begun
        for record in read_lines(self._log)[self._next :]:
            values = {name: value for name, value in record.items() if name != "step"}
            tracker.log(dict(_numbers(values)), step=record["step"])
            self._next = record["step"] + 1

    def _log_outcome(self, tracker: Any, outcome: Outcome) -> None:
        tracker.log({f"evaluation/{name}": score for name, score in outcome.scores.items()}, step=outcome.step)
        if hasattr(tracker, "log_images"):
            more = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"evaluation/images": outcome.images}, step=outcome.step, **more)

    def _leave_out(self, reason: str) -> None:
        if not self._left_out:
            self._left_out = True
            say(f"warning: the tracker {self._name} is left out from here on ({reason}); the run goes on")


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a record by name; those of a list or a table below its name, as ``by_timestep/loss/3``.

    accelerate's TensorBoard tracker refuses lists in tables, and what is None has no place on a curve.
    """
    if isinstance(value, int | float):
        yield name, value
    elif isinstance(value, Mapping | list):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        for part, inner in parts:
            yield from _numbers(inner, f"{name}/{part}" if name else str(part))


def start_trackers(names: Sequence[str], run: Tracked, log: Path) -> list[TrackerThread]:
    """Start the trackers of a run.

    Args:
        names: those of `ARGUMENTS`.
        run: what is tracked.
        log: the training log.
    """
    logged = len(read_lines(log))
    return [TrackerThread(name, _maker(name, run), log, 0 if name in REPLAYED else logged) for name in names]


def _maker(name: str, run: Tracked) -> Callable[[], Any]:
    return lambda: LOGGER_TYPE_TO_CLASS[name](**ARGUMENTS[name](run))


def _file_number(path: Path) -> int | None:
    """What tells a file from the one that replaces it; None if there is none."""
    return path.stat().st_ino if path.exists() else None
