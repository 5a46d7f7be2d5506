"""Trackers get what is in train.jsonl, and whatever they do stays with them."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import UserError
from bench.core.files import append_lines, keep_lines
from bench.training import trackers
from bench.training.trackers import Outcome, Tracked, TrackerThread, check_trackers, start_trackers

LINES: list[dict[str, Any]] = [
    {"step": step, "loss": 0.1 + step / 7, "pairs": 4 * step, "seconds": step / 3} for step in range(6)
]
OUTCOME = Outcome({"gold": 0.75, "clip": -0.5}, np.full((2, 4, 4, 3), 200, np.uint8), 6)


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "PAUSE", 0.01)


def train(log: Path, *, done: int = 0, upto: int = 6) -> None:
    """What training does to its log: it cuts it to the checkpoint, and appends a line after every step."""
    keep_lines(log, LINES[:done])
    for line in LINES[done:upto]:
        append_lines(log, [json.dumps(line)])


class Memory:
    """A tracker that keeps what it gets."""

    name = "memory"

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.finished = False

    def start(self) -> None:
        pass

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished = True


def expected(first: int = 0) -> list[tuple[dict[str, Any], int]]:
    return [({key: value for key, value in line.items() if key != "step"}, line["step"]) for line in LINES[first:]]


def test_a_tracker_gets_the_log_and_then_the_scores(tmp_path: Path) -> None:
    memory, log = Memory(), tmp_path / "train.jsonl"
    thread = TrackerThread("memory", lambda: memory, log, 0)
    train(log)
    thread.close(lambda: OUTCOME, 30)
    assert memory.logged == [*expected(), ({"evaluation/gold": 0.75, "evaluation/clip": -0.5}, 6)]
    assert memory.finished


def test_a_resumed_run_goes_on_where_the_tracker_stopped(tmp_path: Path) -> None:
    log = tmp_path / "train.jsonl"
    train(log, upto=4)  # a crash after step 3; the checkpoint is older
    memory = Memory()
    thread = TrackerThread("memory", lambda: memory, log, 4)
    train(log, done=2)
    thread.close(None, 30)
    assert memory.logged == expected(first=4)


def failing(where: str, error: BaseException) -> Callable[[], Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    def make() -> Any:
        memory = Memory()
        setattr(memory, where, fail)
        return memory

    return make


def unmade() -> Any:
    raise ImportError("its library is broken")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (unmade, "ImportError: its library is broken"),
        (failing("start", RuntimeError("no account")), "RuntimeError: no account"),
        (
            failing("log", OSError(errno.ENOSPC, "No space left on device")),
            "OSError: [Errno 28] No space left on device",
        ),
        (failing("finish", SystemExit(1)), "SystemExit: 1"),
    ],
    ids=["make", "start", "log", "finish"],
)
def test_a_tracker_that_raises_costs_one_sentence(
    make: Callable[[], Any], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "train.jsonl"
    thread = TrackerThread("bad", make, log, 0)
    train(log)
    thread.close(lambda: OUTCOME, 30)
    said = capsys.readouterr().err
    assert said == f"warning: the tracker bad is left out from here on ({reason}); the run goes on\n"


def test_a_tracker_that_hangs_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hanging, log, memory = threading.Event(), tmp_path / "train.jsonl", Memory()
    memory.start = hanging.wait  # type: ignore[method-assign, assignment]
    thread = TrackerThread("slow", lambda: memory, log, 0)
    train(log)
    thread.close(lambda: OUTCOME, 0.1)
    assert "the tracker slow is left out from here on (it has not finished within 0.1 s)" in capsys.readouterr().err
    hanging.set()


def test_unknown_and_missing_trackers_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="unknown tracker 'tensorbord': did you mean 'tensorboard'"):
        check_trackers(["tensorbord"])
    with pytest.raises(
        UserError,
        match=r"--track swanlab needs the package 'swanlab', which is not installed: pip install .*\[swanlab\]",
    ):
        check_trackers(["swanlab"])


def test_tensorboard_holds_what_the_log_holds_also_after_a_crash(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log, folder = tmp_path / "train.jsonl", tmp_path / "tracking"
    run = Tracked("tiny/dpo/recipe/seed-0", "0" * 12, {}, folder)
    (crashed,) = start_trackers(["tensorboard"], run, log)
    train(log, upto=4)
    crashed.close(None, 60)
    (thread,) = start_trackers(["tensorboard"], run, log)
    train(log, done=2)
    thread.close(lambda: OUTCOME, 60)

    held = EventAccumulator(str(folder / "tensorboard" / run.name), size_guidance={"scalars": 0})
    held.Reload()
    assert set(held.Tags()["scalars"]) == {"loss", "pairs", "seconds", "evaluation/gold", "evaluation/clip"}
    for name in ("loss", "pairs", "seconds"):
        scalars = {event.step: event.value for event in held.Scalars(name)}
        # TensorBoard keeps single precision
        assert scalars == {line["step"]: float(np.float32(line[name])) for line in LINES}
    assert [(event.step, event.value) for event in held.Scalars("evaluation/gold")] == [(6, 0.75)]
    assert "evaluation/images" in "".join(held.Tags()["images"])
