from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.cli.conftest import MANY_PROMPTS, CommandLine, write_prompts


def lines(pattern: str, count: int) -> Callable[[Path], bool]:
    def reached(runs: Path) -> bool:
        return any(len(path.read_text().splitlines()) >= count for path in runs.glob(pattern))

    return reached


def files(pattern: str, count: int) -> Callable[[Path], bool]:
    return lambda runs: len(list(runs.glob(pattern))) >= count


MOMENTS = {
    "base images": files("tiny/base/evaluations/*/images/*.png", 5),
    "base scores": lines("tiny/base/evaluations/*/scores.jsonl", 33),
    "second step": lines("tiny/dpo/*/seed-0/train.jsonl", 2),
    "while saving": files("tiny/dpo/*/seed-0/checkpoints/.step-*", 1),
    "own images": files("tiny/dpo/*/seed-0/evaluations/*/images/*.png", 33),
    "own scores": lines("tiny/dpo/*/seed-0/evaluations/*/scores.jsonl", 50),
}


def results(runs: Path) -> tuple[dict[str, bytes], list[dict[str, object]], list[list[str]]]:
    (weights,) = runs.glob("tiny/dpo/*/seed-0/weights/*.safetensors")
    tensors = {name: value.tobytes() for name, value in load_file(weights).items()}
    scores = [
        json.loads(line)
        for path in sorted(runs.glob("tiny/**/scores.jsonl"))
        for line in sorted(path.read_text().splitlines())
    ]
    (log,) = runs.glob("tiny/dpo/*/seed-0/train.jsonl")
    steps = [
        [str(record[name]) for name in ("step", "loss", "margin", "gradient_norm", "pairs")]
        for record in map(json.loads, log.read_text().splitlines())
    ]
    return tensors, scores, steps


@pytest.fixture
def small(command: CommandLine, uninterrupted: Path) -> tuple[CommandLine, Path]:
    """A command to be stopped and the finished runs of the same one."""
    return command, uninterrupted


@pytest.fixture(scope="module")
def large_uninterrupted(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, Path]) -> Path:
    folder = tmp_path_factory.mktemp("large")
    line = CommandLine(folder, small_data[0], write_prompts(folder / "prompts.txt", MANY_PROMPTS))
    done = line.run(line.train_words())
    assert done.returncode == 0, done.stderr
    return folder / "runs"


@pytest.fixture
def large(many_prompts: CommandLine, large_uninterrupted: Path) -> tuple[CommandLine, Path]:
    """The same with more than a chunk of prompts, for the moments within an evaluation."""
    return many_prompts, large_uninterrupted


SLOW = ("base images", "base scores", "second step", "own images", "own scores")


@pytest.mark.parametrize(
    "moment", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MOMENTS]
)
def test_killed_and_continued_equals_uninterrupted_bit_for_bit(moment: str, request: pytest.FixtureRequest) -> None:
    command, uninterrupted = request.getfixturevalue("small" if moment == "while saving" else "large")
    runs = command.folder / "runs"
    process = command.start(command.train_words())
    try:
        while not MOMENTS[moment](runs):
            assert process.poll() is None, f"the run ended before the moment {moment!r} came"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    continued = command.run(command.train_words())
    assert continued.returncode == 0, continued.stderr
    tensors, scores, steps = results(runs)
    expected_tensors, expected_scores, expected_steps = results(uninterrupted)
    assert steps == expected_steps
    assert scores == expected_scores
    assert tensors == expected_tensors


def test_a_finished_run_is_recognised(command: CommandLine, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (command.folder / "runs").rglob("*.json*")}
    assert finished / "config.json" in before
    again = command.run(command.train_words())
    assert again.returncode == 0, again.stderr
    assert [path for path, stamp in before.items() if path.stat().st_mtime_ns != stamp] == []


@pytest.mark.slow  # tests/records/test_rescoring.py meets the same lock
def test_a_second_process_on_the_same_run_says_so_and_exits(command: CommandLine) -> None:
    long = command.train_words("--set", "caption_dropout=0.5")
    long[long.index("steps=6")] = "steps=100000"
    first = command.start(long)
    try:
        while not list(command.folder.glob("runs/tiny/dpo/*/seed-0/train.jsonl")):
            assert first.poll() is None
            time.sleep(0.05)
        second = command.run(long)
        assert second.returncode == 2
        assert f"process {first.pid} already works on" in second.stderr
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()


def test_how_a_run_is_computed_is_no_part_of_what_it_is(command: CommandLine, finished: Path) -> None:
    log = (finished / "train.jsonl").read_bytes()
    words = ["micro_batch_size=2" if word == "micro_batch_size=4" else word for word in command.train_words()]
    again = command.run([*words, "--set", "gradient_checkpointing=true"])
    assert again.returncode == 0, again.stderr
    assert [path.name for path in finished.parent.parent.iterdir()] == [finished.parent.name]
    assert (finished / "train.jsonl").read_bytes() == log
    made_with = json.loads((finished / "environment.json").read_text())
    assert made_with["processes"] == 1
    assert made_with["execution"]["micro_batch_size"] == 4  # as it was trained
