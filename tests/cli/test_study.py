"""`bench run experiment.toml`: the same runs as the options would make, one after another, as printed commands, or as local jobs."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.records.studies import StudyFolder
from tests.cli.conftest import CommandLine, offline
from tests.cli.test_sigterm import check_continued, few_prompts, steps_of

FILE = """\
model = "tiny"
data = "{data}"
prompts = "{prompts}"
metrics = ["aesthetic"]

[images]
steps = 2

[settings]
steps = {steps}
global_batch_size = 4
micro_batch_size = 4
warmup_steps = 0
checkpoint_seconds = 0

[[algorithms]]
name = "dpo"
settings = {{ beta = {betas} }}
"""


def experiment(command: CommandLine, *, steps: int = 2, betas: str = "[100, 200]") -> Path:
    path = command.folder / "small.toml"
    path.write_text(FILE.format(data=command.data, prompts=few_prompts(command), steps=steps, betas=betas))
    return path


def test_a_file_runs_like_its_printed_commands_and_is_written_back(command: CommandLine) -> None:
    path = experiment(command)
    done = command.run(command.arguments("run", str(path), "--seeds", "3", "--set", "beta=100"))
    assert done.returncode == 0, done.stderr
    (run,) = command.folder.glob("runs/tiny/dpo/*/seed-*")
    name = f"tiny/dpo/{run.parent.name}/seed-3"
    assert (run / "DONE").exists()

    # The resolved copy, and the cells with the folders that they fill.
    resolved = command.folder / "runs" / ".studies" / "small" / "study.toml"
    stated = tomllib.loads(resolved.read_text())
    assert (stated["seeds"], stated["settings"]["beta"]) == ([3], 100)
    assert [cell.name for cell in StudyFolder(command.folder / "runs", "small").cells()] == ["tiny/base", name]
    status = command.run(command.arguments("status"))
    assert (status.returncode, status.stderr) == (0, "")
    assert status.stdout.splitlines() == ["done     tiny/base", f"done     {name}", "2 done"]

    # The copy is a file like any other, whose commands find the same, finished run.
    printed = command.run(command.arguments("run", str(resolved), "--print-commands"))
    assert printed.returncode == 0, printed.stderr
    base, line = printed.stdout.splitlines()
    assert base.startswith("bench eval --model tiny ")
    before = (run / "DONE").stat().st_mtime_ns
    again = command.run(command.arguments(*shlex.split(line)[1:]))
    assert again.returncode == 0, again.stderr
    assert f"done: runs/{name}" in again.stderr
    assert (run / "DONE").stat().st_mtime_ns == before

    # A command is written as a file that says the same; the whole file has one command per value of the grid.
    saved = command.run(command.arguments(*shlex.split(line)[1:], "--save", "saved.toml"))
    assert saved.returncode == 0, saved.stderr
    assert "wrote saved.toml; to start it: bench run saved.toml" in saved.stderr
    assert command.run(command.arguments("run", "saved.toml", "--print-commands")).stdout.splitlines() == [base, line]
    whole = command.run(command.arguments("run", str(path), "--seeds", "3", "--print-commands"))
    assert [each.replace("beta=200", "beta=100") for each in whole.stdout.splitlines()] == [base, line, line]


def test_a_saved_command_with_names_like_numbers_runs(command: CommandLine) -> None:
    table = pq.read_table(command.data).rename_columns({"caption": "7", "label_0": "1"})
    pq.write_table(table, command.folder / "numbered.parquet")
    words = [
        "run",
        "--algo",
        "dpo",
        "--model",
        "tiny",
        "--data",
        "numbered.parquet",
        "--limit",
        "4",
        "--metrics",
        "gold",
    ]
    words += ["--columns", "caption=7,label_0=1", "--set", "steps=1", "--image", "negative_prompt=7"]
    saved = command.run(command.arguments(*words, "--save", "saved.toml"))
    assert saved.returncode == 0, saved.stderr
    printed = command.run(command.arguments(*words, "--print-commands"))
    again = command.run(command.arguments("run", "saved.toml", "--print-commands"))
    assert (again.returncode, again.stdout) == (0, printed.stdout), again.stderr
    assert again.stdout.count("--image negative_prompt=7") == 2


def test_printed_commands_say_what_is_empty_and_names_with_commas(command: CommandLine) -> None:
    table = pq.read_table(command.data).rename_columns({"caption": "caption, \\en"})
    pq.write_table(table, command.folder / "commas.parquet")
    (command.folder / "commas.toml").write_text(
        'model = "tiny"\ndata = "commas.parquet"\nlimit = 4\nmetrics = ["gold", "fitted:a,b"]\n'
        "columns = { caption = 'caption, \\en' }\nimages = { negative_prompt = '' }\n[[algorithms]]\nname = 'dpo'\n"
    )
    printed = command.run(command.arguments("run", "commas.toml", "--print-commands"))
    assert printed.returncode == 0, printed.stderr
    assert r"--columns 'caption=caption\, \\en'" in printed.stdout
    assert printed.stdout.count("--image negative_prompt= ") == 2
    words = shlex.split(printed.stdout.splitlines()[1])[1:]
    again = command.run(command.arguments(*words, "--print-commands"))
    assert (again.returncode, again.stdout) == (0, printed.stdout), again.stderr


def test_printed_commands_wait_until_their_study_is_deleted(command: CommandLine) -> None:
    path = experiment(command)
    assert command.run(command.arguments("run", str(path), "--print-commands")).returncode == 0
    waiting = command.run(command.arguments("status")).stdout.splitlines()
    assert [line.split()[0] for line in waiting] == ["waiting"] * 3 + [
        "3"
    ]  # the base model, a run for each beta, and their sum
    assert "runs/.studies/NAME" in " ".join(command.run(command.arguments("run", "--help")).stdout.split())

    shutil.rmtree(command.folder / "runs" / ".studies" / "small")
    assert command.run(command.arguments("status")).stdout == "there are no runs\n"


def test_a_name_without_algo_is_that_of_the_file_s_run(command: CommandLine) -> None:
    path = experiment(command, betas="100")
    printed = command.run(command.arguments("run", str(path), "--name", "mine", "--print-commands"))
    assert (printed.returncode, printed.stdout.count(" --name mine")) == (0, 1), printed.stderr


def test_printed_commands_share_a_run_as_the_file_says(command: CommandLine) -> None:
    path = experiment(command, betas="100")
    path.write_text('executor = { name = "local", jobs = 2, processes = 2 }\n' + path.read_text())
    printed = command.run(command.arguments("run", str(path), "--print-commands"))
    assert printed.returncode == 0, printed.stderr
    starts = [line.partition(" -m bench ")[0] for line in printed.stdout.splitlines()]
    assert starts == ["accelerate launch --multi_gpu --num_processes 2 --main_process_port 0"] * 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run"], "--algo and --model missing; give them, or an experiment file"),
        (["run", "--algo", "dpo"], "--model missing; give it, or an experiment file"),
        (["run", "nothing.toml"], "there is no experiment file nothing.toml"),
        (
            ["run", "--algo", "dpo", "--model", "tiny", "--executor", "locl"],
            "unknown executor 'locl': did you mean 'local'",
        ),
        (
            ["run", "--algo", "dpo", "--model", "tiny", "--jobs", "2", "--resource", "thread=1"],
            "did you mean 'threads'",
        ),
        (
            ["run", "--algo", "dpo", "--model", "tiny", "--resource", "threads=1"],
            "executor: name one of local, print, slurm",
        ),
        (
            ["run", "--algo", "dpo", "--model", "tiny", "--executor", "slurm", "--print-commands"],
            "--print-commands and --executor slurm both say what becomes of the runs; use one of them",
        ),
        (
            ["run", "--algo", "dpo", "--model", "tiny", "--resource", "name=slurm", "--print-commands"],
            "--resource name=... and --print-commands set the same field; use one of them",
        ),
        (["status", "nothing", "--runs", "."], "there is no study 'nothing' in .: there are none"),
        (["status", "--runs", "trail"], "trail does not exist"),
        (["status", "--runs", "trail", "--failed"], "trail does not exist"),
    ],
)
def test_what_is_missing_is_one_sentence(command: CommandLine, words: list[str], sentence: str) -> None:
    done = command.run(command.arguments(*words))
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_local_jobs_make_the_same_weights_and_a_failure_leaves_the_others_alone(command: CommandLine) -> None:
    path = experiment(command)
    words = command.arguments("run", str(path), "--resource", "threads=1")
    straight = command.run(command.arguments("run", str(path), "--runs", "straight"))
    assert straight.returncode == 0, straight.stderr
    planned = command.run([*words, "--jobs", "2", "--print-commands"])
    assert planned.returncode == 2  # print has no jobs
    # A folder that is a file makes one of the runs fail.
    first, second = (cell for cell in _cells(command, path) if cell.startswith("tiny/dpo"))
    blocked = command.folder / "runs" / first
    blocked.parent.mkdir(parents=True)
    blocked.write_text("")

    failed = subprocess.run(
        [*words, "--jobs", "2"], cwd=command.folder, env=offline(), capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1, failed.stderr
    assert "1 of 3 commands failed" in failed.stderr
    status = command.run(command.arguments("status")).stdout.splitlines()
    assert status[0].startswith(f"failed   {first}")
    assert status[1].strip().startswith("error: runs/tiny/dpo/")
    assert "is a file, not a folder" in (command.folder / "runs/.studies/small/logs" / f"{first}.log").read_text()
    assert status[-1] == "1 failed, 2 done"
    (line,) = command.run(command.arguments("status", "--failed")).stdout.splitlines()

    blocked.unlink()
    repeated = command.run(command.arguments(*shlex.split(line)[1:]))
    assert repeated.returncode == 0, repeated.stderr
    for run in (first, second):
        one, other = (command.folder / runs / run for runs in ("runs", "straight"))
        assert {each.name: each.read_bytes() for each in one.glob("weights/*")} == {
            each.name: each.read_bytes() for each in other.glob("weights/*")
        }
    assert json.loads((command.folder / "runs" / second / "environment.json").read_text())["threads"] == 1


def _cells(command: CommandLine, path: Path) -> list[str]:
    done = command.run(command.arguments("run", str(path), "--print-commands", "--runs", "elsewhere"))
    assert done.returncode == 0, done.stderr
    return [cell.name for cell in StudyFolder(command.folder / "elsewhere", path.stem).cells()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_every_cell_save_and_the_same_command_continues(
    command: CommandLine, number: signal.Signals
) -> None:
    path = experiment(command, steps=12, betas="100")
    words = command.arguments("run", str(path), "--jobs", "2")
    runs = command.folder / "runs"
    with subprocess.Popen(words, cwd=command.folder, env=offline(), stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 300
        while len(steps_of(runs)) < 2 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + number, errors
    assert errors.count("run the same command to resume") == 1
    done = len(steps_of(runs))
    assert 2 <= done < 12
    assert f"{done}/12 steps" in command.run(command.arguments("status")).stdout
    again = command.run(words)
    assert again.returncode == 0, again.stderr
    straight = command.run(command.arguments("run", str(path), "--runs", "straight"))
    assert straight.returncode == 0, straight.stderr
    check_continued(command, runs, command.folder / "straight")


@pytest.mark.slow
def test_processes_share_a_run_on_a_cpu_too_and_a_stopped_one_waits(command: CommandLine) -> None:
    path = experiment(command, steps=12, betas="100")
    words = command.arguments("run", str(path), "--executor", "local", "--resource", "processes=2")
    runs = command.folder / "runs"
    with subprocess.Popen(words, cwd=command.folder, env=offline(), stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 600
        while len(steps_of(runs)) < 2 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 143, errors
    (run,) = runs.glob("tiny/dpo/*/seed-0")
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    done = len(steps_of(runs))
    assert 2 <= done < 12
    # accelerate launch returns 1, which is no failure of the run
    assert (
        f"waiting  tiny/dpo/{run.parent.name}/seed-0  {done}/12 steps"
        in command.run(command.arguments("status")).stdout
    )
    again = command.run(words)
    assert again.returncode == 0, again.stderr
    assert len(steps_of(runs)) == 12
