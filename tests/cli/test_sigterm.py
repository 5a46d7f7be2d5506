"""SIGTERM, which Slurm and Kubernetes send, and Ctrl-C: training saves, says one line, and the same command continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launches import FAILING

from tests.cli.conftest import CommandLine

WAIT = 300
"""Seconds after which a process that should have ended is given up."""
STEPS = 12


def steps_of(runs: Path) -> list[dict[str, float]]:
    logs = list(runs.glob("tiny/dpo/*/seed-0/train.jsonl"))
    return [json.loads(line) for line in logs[0].read_text().splitlines()] if logs else []


def started(runs: Path) -> bool:
    """Whether a step is in the log."""
    return any("\n" in path.read_text() for path in runs.glob("tiny/dpo/*/seed-0/train.jsonl"))


def stop_in_training(
    words: list[str], command: CommandLine, runs: Path, number: signal.Signals = signal.SIGTERM
) -> tuple[int, str]:
    """Start a command, send a signal once it has trained a step, and return its exit code and what it said."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    with subprocess.Popen(
        # as in a terminal, also where the tests run under nohup
        ["env", "--default-signal=HUP", *words],
        cwd=command.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until = time.monotonic() + WAIT
        while not started(runs) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(number)
        _, errors = process.communicate(timeout=WAIT)
        return process.returncode, errors


def check_continued(command: CommandLine, stopped: Path, straight: Path) -> None:
    one, other = (
        {path.name: path.read_bytes() for path in runs.glob("tiny/dpo/*/seed-0/weights/*")}
        for runs in (stopped, straight)
    )
    assert one
    assert one.keys() == other.keys()
    assert [name for name, content in one.items() if other[name] != content] == []
    kept = ("step", "loss", "gradient_norm", "pairs")
    assert [[line[name] for name in kept] for line in steps_of(stopped)] == [
        [line[name] for name in kept] for line in steps_of(straight)
    ]


def few_prompts(command: CommandLine) -> Path:
    path = command.folder / "prompts.txt"
    path.write_text("a bee on a red background\na cat on a blue background\n")
    return path


def run_words(command: CommandLine, runs: Path) -> list[str]:
    sets = [f"--set={setting}" for setting in (f"steps={STEPS}", "global_batch_size=4", "micro_batch_size=2")]
    return [
        "run", "--algo", "dpo", "--model", "tiny", "--data", str(command.data), "--prompts", str(few_prompts(command)),
        "--sampling-steps", "2", "--metrics", "aesthetic", "--runs", str(runs), *sets,
    ]  # fmt: skip


def test_training_saves_and_the_same_command_continues(command: CommandLine, uninterrupted: Path) -> None:
    runs = command.folder / "stopped"
    seldom = {"checkpoint_seconds=0": "checkpoint_seconds=600"}  # what is saved is saved for the signal
    words = [seldom.get(word, word) for word in command.train_words(runs=runs.name)]
    code, errors = stop_in_training(words, command, runs)
    check_stopped(errors, runs, steps=6)
    assert code == 143
    finished = command.run(words)
    assert finished.returncode == 0, finished.stderr
    check_continued(command, runs, uninterrupted)


@pytest.mark.slow
def test_two_processes_save_and_the_same_command_continues(command: CommandLine) -> None:
    runs = {name: command.folder / name for name in ("stopped", "straight")}

    def words(name: str) -> list[str]:
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
        return [*launcher, str(FAILING), str(command.folder), *run_words(command, runs[name])]

    _, errors = stop_in_training(words("stopped"), command, runs["stopped"])
    check_stopped(errors, runs["stopped"], steps=STEPS)
    assert {path.name: path.read_text() for path in command.folder.glob("code-*")} == {"code-0": "143", "code-1": "143"}
    for name in runs:
        finished = command.run(words(name))
        assert finished.returncode == 0, finished.stderr
    check_continued(command, runs["stopped"], runs["straight"])


def check_stopped(errors: str, runs: Path, *, steps: int) -> None:
    """It said so once, within training, and saved at the step that it had reached."""
    assert errors.count("stopped by SIGTERM; run the same command to resume") == 1, errors
    assert "Traceback" not in errors.partition("stopped by SIGTERM")[0]
    done = len(steps_of(runs))
    assert 1 <= done < steps
    (checkpoint,) = runs.glob("tiny/dpo/*/seed-0/checkpoints/*")
    assert checkpoint.name == f"step-{done:08d}"


@pytest.mark.slow
def test_ctrl_c_in_training_saves_too_and_resuming_says_where(command: CommandLine) -> None:
    runs = command.folder / "interrupted"
    words = [sys.executable, "-m", "bench", *run_words(command, runs)]
    code, errors = stop_in_training(words, command, runs, signal.SIGINT)
    assert code == 130
    assert errors.count("stopped by Ctrl-C; run the same command to resume") == 1, errors
    assert "Traceback" not in errors
    done = len(steps_of(runs))
    assert 1 <= done < STEPS
    (checkpoint,) = runs.glob("tiny/dpo/*/seed-0/checkpoints/*")
    assert checkpoint.name == f"step-{done:08d}"
    assert "resuming" not in errors

    finished = command.run(words)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count(f"resuming dpo at step {done} of {STEPS}\n") == 1
    assert [line["step"] for line in steps_of(runs)] == list(range(STEPS))


@pytest.mark.slow
def test_training_whose_terminal_is_closed_saves_too(command: CommandLine) -> None:
    runs = command.folder / "closed"
    words = [sys.executable, "-m", "bench", *run_words(command, runs)]
    code, _ = stop_in_training(words, command, runs, signal.SIGHUP)
    assert code == 129
    (checkpoint,) = runs.glob("tiny/dpo/*/seed-0/checkpoints/*")
    assert checkpoint.name == f"step-{len(steps_of(runs)):08d}"


TWICE = """
import os, signal, sys, time
from bench.core import termination
termination.listen()
with termination.deferred():
    os.kill(os.getpid(), signal.SIGINT)
    print("noted", termination.requested(), flush=True)
    time.sleep(float(sys.argv[1]))
    os.kill(os.getpid(), signal.SIGINT)
    print("noted again", flush=True)
"""


@pytest.mark.parametrize(
    ("processes", "pause", "said"),
    [("1", "0", ["noted True"]), ("2", "0", ["noted True", "noted again"]), ("2", "1.1", ["noted True"])],
)
def test_a_second_ctrl_c_ends_at_once_but_not_the_one_that_a_launcher_passes_on(
    processes: str, pause: str, said: list[str]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TWICE, pause], env={**os.environ, "WORLD_SIZE": processes}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert ended.stdout.splitlines() == said
    # Python ends with the signal itself after KeyboardInterrupt
    assert ended.returncode == (130 if "noted again" in said else -signal.SIGINT)


@pytest.mark.slow
def test_outside_of_training_it_ends_at_once_and_the_same_command_continues(command: CommandLine) -> None:
    runs = command.folder / "base-stopped"
    words = [
        sys.executable, "-m", "bench", "eval", "--model", "tiny", "--prompts", str(command.prompts), "--metrics", "aesthetic",
        "--runs", runs.name,
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        words, cwd=command.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + WAIT
        while (
            not list(runs.glob("tiny/base/evaluations/*/images"))
            and process.poll() is None
            and time.monotonic() < until
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=WAIT)
    assert process.returncode == 143
    assert "stopped by SIGTERM; run the same command to resume" in errors
    assert command.run(words).returncode == 0
