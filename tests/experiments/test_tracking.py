"""Trackers of real runs: what they hold equals the log, and whatever one does changes no bit of the result."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.training import trackers

SETTINGS = {"steps": 3, "global_batch_size": 4, "micro_batch_size": 4, "warmup_steps": 0, "learning_rate": 1e-4}

pytestmark = pytest.mark.slow


def train(folder: Path, *track: str) -> Path:
    """A small run of the tiny model; returns its folder."""
    prompts = folder / "prompts.txt"
    prompts.write_text("a bee on a red background\na cat on a blue background\n")
    (result,) = bench.run(
        "dpo", "tiny", settings=SETTINGS, prompts=str(prompts), metrics=["aesthetic"], images={"steps": 1}, limit=8,
        runs=folder / "runs", track=track,
    )  # fmt: skip
    return Path(result.folder)


def bits(run: Path) -> dict[str, Any]:
    """Everything that a run comes to but times and memory."""
    files = {
        str(path.relative_to(run)): path.read_bytes()
        for kind in ("weights/*", "*/*/images/*")
        for path in run.glob(kind)
    }
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    scores = [path.read_text() for path in run.glob("evaluations/*/scores.jsonl")]
    return {**files, "log": [{**line, "seconds": 0} for line in lines], "scores": scores}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run without trackers comes to."""
    made = bits(train(tmp_path_factory.mktemp("plain")))
    assert any(name.endswith(".safetensors") for name in made)
    return made


def numbers(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The numbers of the training log by name, with their steps."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in map(json.loads, (run / "train.jsonl").read_text().splitlines()):
        tables = line.pop("by_timestep")
        more = {
            f"by_timestep/{kind}/{place}": value
            for kind, values in tables.items()
            for place, value in enumerate(values)
        }
        for name, value in (line | more).items():
            if name != "step" and value is not None:
                found.setdefault(name, []).append((line["step"], value))
    assert any(name.startswith("by_timestep/loss/") for name in found)
    return found


def score(run: Path) -> float:
    (path,) = run.glob("evaluations/*/scores.jsonl")
    scores = [json.loads(line)["score"] for line in path.read_text().splitlines()]
    return sum(scores) / len(scores)


def test_tensorboard_holds_what_the_log_of_a_run_holds(tmp_path: Path, plain: dict[str, Any]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "runs/.tracking/tensorboard" / run.relative_to(tmp_path / "runs")))
    events.Reload()
    held = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert held.pop("evaluation/aesthetic") == [(3, pytest.approx(score(run), rel=1e-6))]
    assert held == {
        name: [(step, pytest.approx(value, rel=1e-6)) for step, value in values]
        for name, values in numbers(run).items()
    }  # TensorBoard keeps 32 bits
    assert events.Tags()["images"]
    assert bits(run) == plain


def test_trackio_holds_what_the_log_of_a_run_holds(
    tmp_path: Path, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    run = train(tmp_path, "trackio")
    logged = SQLiteStorage.get_logs(trackers.PROJECT, run.relative_to(tmp_path / "runs").as_posix())
    held: dict[str, list[tuple[int, float]]] = {}
    for line in logged:
        for name, value in line.items():
            if name not in {"step", "timestamp"} and isinstance(value, int | float):
                held.setdefault(name, []).append((line["step"], value))
    assert held.pop("evaluation/aesthetic") == [(3, pytest.approx(score(run), rel=1e-12))]
    assert held == numbers(run)
    assert bits(run) == plain


class Raises:
    """A tracker whose every call fails."""

    def __init__(self, *_: object, **__: object) -> None:
        self.fail()

    def fail(self) -> None:
        raise RuntimeError("no account")


class Hangs:
    """A tracker that never comes back from its first line."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def start(self) -> None: ...

    def log(self, *_: object, **__: object) -> None:
        threading.Event().wait()


class FillsTheDisk(Hangs):
    """A tracker whose disk is full."""

    def log(self, *_: object, **__: object) -> None:
        with Path("/dev/full").open("w") as stream:
            stream.write("x" * 100_000)


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Raises, "no account"), (Hangs, "has not finished within 1 s"), (FillsTheDisk, f"[Errno {errno.ENOSPC}]")],
)
def test_what_a_tracker_does_changes_no_bit(
    kind: type,
    said: str,
    tmp_path: Path,
    plain: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(trackers.LOGGER_TYPE_TO_CLASS, "tensorboard", kind)
    monkeypatch.setattr("bench.experiments.tracking.PATIENCE", 1.0)
    assert bits(train(tmp_path, "tensorboard")) == plain
    (warning,) = [line for line in capfd.readouterr().err.splitlines() if "warning: the tracker" in line]
    assert "warning: the tracker tensorboard is left out from here on (" in warning
    assert said in warning
