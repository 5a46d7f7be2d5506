"""The local executor, with commands that take a moment."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.core.errors import UserError
from bench.experiments.executors.base import Matrix, make_executor
from bench.experiments.executors.local import Local, seconds_left
from bench.records.states import states_of_study
from bench.records.studies import Cell, StudyFolder


def cell(name: str, *words: str, after: str | None = None) -> Cell:
    return Cell(name, words, "0" * 12, (), after)


def test_a_failure_leaves_the_others_alone_and_what_needs_it_is_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = StudyFolder(tmp_path, "small")
    cells = [
        cell("one/base", "--version"),
        cell("two/base", "beta", "1", "--from", "nowhere"),
        cell("one/run", "--version", after="one/base"),
        cell("two/run", "--version", after="two/base"),
        cell("free", "--version", after="not among them"),
    ]
    study.write("", cells)
    assert study.cells() == cells
    failed = Local(jobs=2).start(Matrix(cells, study))
    assert failed == ["two/base", "two/run"]
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("runs ")]
    assert re.fullmatch(r"runs  3/3  in \d+ s  \S+( s each)?  running 0", shown[-1])  # without the two base models
    assert "diffusion-alignment-bench" in study.log(cells[2]).read_text()
    assert not study.log(cells[3]).exists()
    # Finished with code 0, but nothing is in the folders of the runs.
    assert [state.kind for state in states_of_study(study)] == ["waiting", "failed", "waiting", "waiting", "waiting"]
    (said,) = [state.said for state in states_of_study(study) if state.said]
    assert "nowhere" in said


def test_runs_that_were_done_before_tell_no_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = StudyFolder(tmp_path, "small")
    cells = [cell("one/base", "--version"), cell("one/run", "--version", after="one/base")]
    study.write("", cells)
    for each in cells:
        place = tmp_path / each.name / "evaluations" / each.protocol
        place.mkdir(parents=True)
        (place / "metrics.json").write_text("{}")
        for folder in (place, tmp_path / each.name):
            (folder / "DONE").write_text("")
    assert Local(jobs=1).start(Matrix(cells, study)) == []
    assert study.attempt(cells[1]) is not None  # it was started, and would have said what is wrong
    assert "each" not in capsys.readouterr().err  # on a slow machine there may be a line, "runs  0/1  running 1"


@pytest.mark.parametrize(
    ("ages", "waiting", "places", "left"),
    [
        ([30, 90], 0, 2, 70),
        ([30, 90], 1, 2, 110),  # it follows the one that ends in 10 s
        ([30, 90], 2, 2, 170),
        ([30], 2, 2, 170),  # one place is free
        ([150], 1, 1, 100),
        ([150], 0, 1, 0),
        ([], 3, 2, 200),
    ],
)
def test_the_time_left_of_runs_beside_each_other(ages: list[float], waiting: int, places: int, left: float) -> None:
    assert seconds_left(100, ages, waiting, places) == left


def test_threads_are_shared_between_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [place["OMP_NUM_THREADS"] for place in Local(jobs=3)._environments()] == ["2", "2", "2"]
    assert [place.get("CUDA_VISIBLE_DEVICES") for place in Local(jobs=3)._environments()] == ["3", "5", "7"]
    two = Local(jobs=1, processes=2, threads=5)._environments()
    assert two == [{"OMP_NUM_THREADS": "5", "CUDA_VISIBLE_DEVICES": "3,5"}]


@pytest.mark.parametrize(
    ("shown", "jobs", "processes", "places"),
    [
        ("0,1", 4, 1, ["0", "1", "0", "1"]),
        ("0,1,2", 2, 2, ["0,1", "0,1"]),
        ("0,1,2,3", 3, 2, ["0,1", "2,3", "0,1"]),
        ("3", 1, 2, [None]),  # accelerate launch says what is wrong
        ("-1", 2, 1, [None, None]),
    ],
)
def test_runs_share_gpus_evenly_where_there_are_too_few_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shown: str,
    jobs: int,
    processes: int,
    places: list[str | None],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    found = Local(jobs=jobs, processes=processes)._environments()
    assert [place.get("CUDA_VISIBLE_DEVICES") for place in found] == places
    assert ("runs share GPUs" in capsys.readouterr().err) is (len(set(places)) < jobs and None not in places)


def test_what_cannot_be_recorded_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = StudyFolder(tmp_path, "small")
    cells = [cell("one/run", "--version"), cell("two/run", "--version")]
    study.write("", cells)
    (study.folder / "logs" / "one" / "run.json").mkdir(parents=True)
    assert Local(jobs=2).start(Matrix(cells, study)) == []
    (attempt,) = filter(None, [study.attempt(cells[1])])
    assert attempt.code == 0
    assert "what `bench status` says of one/run is out of date: " in capsys.readouterr().err


def test_an_error_lets_the_runs_that_go_on_save(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path, "small")
    cells = [
        cell("long", "status", "--watch", "--runs", str(tmp_path / "none")),
        cell("short", "--version"),
        cell("refused", "--version"),
    ]
    study.write("", cells)
    study.log(cells[2]).mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        Local(jobs=2).start(Matrix(cells, study))
    (attempt,) = filter(None, [study.attempt(cells[0])])
    assert attempt.code == 143


PARENT = """
import signal
import sys
from pathlib import Path
from bench.core import termination
from bench.experiments.executors.base import Matrix
from bench.experiments.executors.local import Local
from bench.records.studies import Cell, StudyFolder
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a terminal, also where the tests run under nohup
termination.listen()
study = StudyFolder(Path(sys.argv[1]), "small")
Local(jobs=2).start(Matrix(study.cells(), study))
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_no_run_outlives_the_command_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    study = StudyFolder(tmp_path, "small")
    cells = [cell(name, "status", "--watch", "--runs", str(tmp_path / "none")) for name in ("one/run", "two/run")]
    study.write("", cells)

    def alive() -> list[bool]:
        return [attempt is not None and attempt.alive for attempt in map(study.attempt, cells)]

    def await_alive(wanted: list[bool]) -> None:
        until = time.monotonic() + 100
        while alive() != wanted and time.monotonic() < until:
            time.sleep(0.05)
        assert alive() == wanted

    words = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ}) as process:
        await_alive([True, True])
        process.send_signal(number)
        await_alive([False, False])
        process.wait(100)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 129)


@pytest.mark.parametrize(("wanted", "threads"), [("1", "1"), ("16", "4"), ("", "4"), ("0", "4"), ("3,2", "4")])
def test_no_more_threads_than_the_environment_asks_for(
    monkeypatch: pytest.MonkeyPatch, wanted: str, threads: str
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert {place["OMP_NUM_THREADS"] for place in Local(jobs=2)._environments()} == {threads}
    assert Local(jobs=1, threads=6)._environments()[0]["OMP_NUM_THREADS"] == "6"


def test_commands_for_several_processes() -> None:
    assert cell("a", "run", "--set", "x=a b").line() == "bench run --set 'x=a b'"
    assert (
        dataclasses.replace(cell("a", "run"), processes=8).line()
        == "accelerate launch --multi_gpu --num_processes 8 --main_process_port 0 -m bench run"
    )


def test_an_executor_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="executor local: jobs=0 is not allowed"):
        make_executor({"name": "local", "jobs": 0})
    with pytest.raises(UserError, match="executor print has no field 'jobs'"):
        make_executor({"name": "print", "jobs": "2"})


def test_an_executor_is_not_launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without accelerate launch"):
        Local().start(Matrix([], StudyFolder(tmp_path, "small")))
