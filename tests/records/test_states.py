"""What `bench status` says, from folders as runs leave them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.cli.status import lines_of
from bench.core.errors import UserError
from bench.core.locks import exclusive
from bench.core.signs import here
from bench.records.states import Progress, State, states_of_runs, states_of_study
from bench.records.studies import Cell, StudyFolder, find_studies

SIGNATURE = "0" * 12
HELD = "import sys; from pathlib import Path; from bench.core.locks import exclusive\nwith exclusive(Path(sys.argv[1]), ''): print(flush=True); input()"


def training_run(
    folder: Path, *, steps: int, of: int = 10, budget: dict[str, object] | None = None, processes: int = 1
) -> None:
    folder.mkdir(parents=True)
    training = {"steps": of, "budget": budget}
    resolved = {
        "algorithm": {}, "training": training, "init": "0", "data": {"digest": "0", "labels": "0", "pairs": 4}, "rewards": {},
        "model": {}, "code": {"algorithm": "0"},
    }  # fmt: skip
    config = {
        "schema": 5, "model": "tiny", "algorithm": "dpo", "title": "DPO", "seed": 0, "name": "recipe", "base_weights": "0",
        "resolved": resolved, "data": {"source": "x", "rows": 4, "pairs": 4, "ties_dropped": 0, "undecodable": []},
        "changed": {}, "typed": [], "init": "base", "recipe": None, "limit": None, "trained_on": [], "same_code": [],
        "placebo": "", "placebo_of": None,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "environment.json").write_text(json.dumps({"processes": processes}))
    lines = [json.dumps({"step": n, "loss": 0.5, "pairs": 4 * (n + 1), "seconds": 6.0 * (n + 1)}) for n in range(steps)]
    (folder / "train.jsonl").write_text("\n".join([*lines, '{"step": 99, "lo']))
    os.utime(folder / "train.jsonl", (0, 0))
    (folder / ".lock").write_text("1234567890")


def evaluation(folder: Path, *, images: int, done: bool, metrics: tuple[str, ...] = ("gold",)) -> None:
    place = folder / "evaluations" / SIGNATURE
    (place / "images").mkdir(parents=True)
    (place / "protocol.json").write_text(json.dumps({"prompt_count": 4, "generation": {"images_per_prompt": 2}}))
    (place / "metrics.json").write_text(json.dumps({metric: {} for metric in metrics}))
    for number in range(images):
        (place / "images" / f"{number}.png").write_text("")
    for each in (place, place / "images"):
        os.utime(each, (0, 0))
    if done:
        (place / "DONE").write_text("")


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Another process works on the run."""
    with subprocess.Popen(
        [sys.executable, "-c", HELD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


def test_the_states_of_a_study(tmp_path: Path) -> None:
    names = ["m/base", "m/dpo/recipe/seed-0", "m/dpo/recipe/seed-1", "m/dpo/recipe/seed-2", "m/dpo/recipe/seed-3"]
    cells = [Cell(name, ("run",), SIGNATURE, ("gold",)) for name in names]
    study = StudyFolder(tmp_path, "s")
    study.write("", cells)
    evaluation(tmp_path / names[0], images=8, done=True)
    (tmp_path / names[0] / "DONE").write_text("")
    training_run(tmp_path / names[1], steps=4, processes=2)
    training_run(tmp_path / names[2], steps=10)
    (tmp_path / names[2] / "DONE").write_text("")
    evaluation(tmp_path / names[2], images=3, done=False)
    training_run(tmp_path / names[3], steps=2)
    study.log(cells[3]).parent.mkdir(parents=True)
    study.log(cells[3]).write_text("a line\nerror: the disk is full\n\n")
    study.record(cells[3], 1234567890, 2)
    with held(tmp_path / names[1] / ".lock"):
        states = states_of_study(study)
    assert states == [
        State(names[0], "done", cell=cells[0]),
        State(names[1], "running", Progress(4, 10, "steps", 3.0), cell=cells[1]),
        State(names[2], "waiting", Progress(3, 8, "images"), cell=cells[2]),
        State(names[3], "failed", Progress(2, 10, "steps", 6.0), "error: the disk is full", cells[3]),
        State(names[4], "waiting", cell=cells[4]),
    ]
    assert list(lines_of(states, 80)) == [
        "done     m/base",
        "running  m/dpo/recipe/seed-0  4/10 steps  18 s left  3.0 s each",
        "waiting  m/dpo/recipe/seed-1  3/8 images",
        "failed   m/dpo/recipe/seed-2  2/10 steps",
        "         error: the disk is full",
        "waiting  m/dpo/recipe/seed-3",
        "1 running, 1 failed, 2 waiting, 1 done",
    ]
    # Another metric is wanted now.
    study.write("", [Cell(names[0], ("run",), SIGNATURE, ("gold", "clip"))])
    assert [state.kind for state in states_of_study(study)] == ["waiting"]


def test_what_is_done_stays_done_while_others_look_at_it(tmp_path: Path) -> None:
    base = tmp_path / "m" / "base"
    cells = [Cell("m/base", ("eval",), SIGNATURE, ("gold",))]
    study = StudyFolder(tmp_path, "s")
    study.write("", cells)
    training_run(base, steps=0)
    (base / "DONE").write_text("")
    evaluation(base, images=8, done=True)
    with held(base / ".lock"):
        assert states_of_study(study) == [State("m/base", "done", cell=cells[0])]
        # Its own command starts again, finds nothing to do and ends; where it fails, that is said.
        study.record(cells[0], os.getpid())
        assert [state.kind for state in states_of_study(study)] == ["done"]
        (base / "evaluations" / SIGNATURE / "DONE").unlink()
        assert [state.kind for state in states_of_study(study)] == ["running"]
    (base / "evaluations" / SIGNATURE / "DONE").write_text("")
    study.record(cells[0], os.getpid(), 2)
    assert [state.kind for state in states_of_study(study)] == ["failed"]
    # What it had made was taken away; then the command is repeated by hand and ends well.
    shutil.rmtree(base / "evaluations")
    assert [state.kind for state in states_of_study(study)] == ["failed"]
    evaluation(base, images=8, done=True)
    assert [state.kind for state in states_of_study(study)] == ["done"]
    study.record(cells[0], os.getpid(), 2)
    assert [state.kind for state in states_of_study(study)] == ["failed"]


def test_a_failure_is_said_in_full_and_a_name_loses_its_hashes_first() -> None:
    said = "error: the loss is nan at step 3 of tiny/sft/set-8c6b1e21-e3c49ae2/seed-1; lower the learning rate or raise beta, and repeat"
    steps = Progress(20, 2000, "steps", 222.9)
    states = [
        State("stable-diffusion-v1-5/sft/set-8c6b1e21-e3c49ae2/seed-1", "running", steps),
        State("tiny/sft/untried-e3c49ae2-placebo/seed-11", "running", steps),
        State("tiny/sft/set-8c6b1e21-placebo/seed-1", "running", steps),
        State("tiny/sft/set-8c6b1e21-e3c49ae2/seed-1", "failed", Progress(3, 20, "steps"), said),
    ]
    assert list(lines_of(states, 80)) == [
        "running  stable-d...ion-v1-5/sft/set-8c6b.../seed-1  20/2000 steps  122.6 h left",
        "running  tiny/sft/untried...-placebo/seed-11  20/2000 steps  122.6 h left",
        "running  tiny/sft/set-8c6b...-placebo/seed-1  20/2000 steps  122.6 h left",
        "failed   tiny/sft/set-8c6b1e21-e3c49ae2/seed-1  3/20 steps",
        "         error: the loss is nan at step 3 of",
        "         tiny/sft/set-8c6b1e21-e3c49ae2/seed-1; lower the learning rate or raise",
        "         beta, and repeat",
        "3 running, 1 failed",
    ]


def test_configurations_of_an_algorithm_are_told_apart_by_their_settings() -> None:
    words = ("run", "--set", "steps=20", "--set")
    cells = [
        Cell("m/base", ("eval",), SIGNATURE, ()),
        Cell("m/dpo/set-8c6b1e21/seed-0", (*words, "learning_rate=1e30"), SIGNATURE, ()),
        Cell("m/dpo/set-0123abcd/seed-0", (*words, "learning_rate=1e-5", "--set", "beta=5"), SIGNATURE, ()),
        Cell("m/sft/set-0123abcd/seed-0", words[:-1], SIGNATURE, ()),
        Cell("m/sft/set-0123abcd/seed-1", words[:-1], SIGNATURE, ()),
    ]
    steps = Progress(3, 20, "steps", 2.0)
    states = [State(each.name, "waiting", cell=each) for each in cells]
    states += [State(cells[1].name, "running", steps, cell=cells[1]), State("m/other/recipe/seed-0", "waiting")]
    assert list(lines_of(states, 80))[:-1] == [
        "waiting  m/base",
        "waiting  m/dpo/set-8c6b1e21/seed-0  learning_rate=1e30",
        "waiting  m/dpo/set-0123abcd/seed-0  learning_rate=1e-5,beta=5",
        "waiting  m/sft/set-0123abcd/seed-0",
        "waiting  m/sft/set-0123abcd/seed-1",
        "running  m/dpo/set-8c6b.../seed-0  3/20 steps  34 s left  learning_rate=1e30",
        "waiting  m/other/recipe/seed-0",
    ]


def test_what_a_run_does_while_nothing_is_counted() -> None:
    states = [
        State("m/base", "running"),
        State("m/base", "running", Progress(0, 8, "images")),
        State("m/base", "running", Progress(8, 8, "images")),
        State("m/base", "waiting", Progress(8, 8, "images")),
        State("m/dpo/recipe/seed-0", "running", Progress(0, 10, "steps")),
        State("m/dpo/recipe/seed-0", "running", Progress(0, None, "steps")),
        State("m/dpo/recipe/seed-0", "waiting", Progress(0, 10, "steps")),
        State("m/dpo/recipe/seed-0", "running", Progress(10, 10, "steps", 6.0)),
    ]
    assert list(lines_of(states, 80))[:-1] == [
        "running  m/base  preparing",
        "running  m/base  0/8 images",
        "running  m/base  8/8 images  scoring",
        "waiting  m/base  8/8 images",
        "running  m/dpo/recipe/seed-0  0/10 steps  preparing",
        "running  m/dpo/recipe/seed-0  0 steps  preparing",
        "waiting  m/dpo/recipe/seed-0  0/10 steps",
        "running  m/dpo/recipe/seed-0  10/10 steps  0 s left  6.0 s each",
    ]


def test_a_configuration_called_weights_is_shown_and_released_weights_are_not(tmp_path: Path) -> None:
    run, released, damaged = (tmp_path / name for name in ("m/dpo/weights/seed-0", "m/weights/theirs", "m/weights/x"))
    for folder in (run, released, damaged):
        training_run(folder, steps=2)
    config = json.loads((released / "config.json").read_text())
    (released / "config.json").write_text(json.dumps({**config, "algorithm": "weights"}))
    (damaged / "config.json").write_text("{")
    shown = [State("m/dpo/weights/seed-0", "waiting", Progress(2, 10, "steps", 6.0))]
    assert states_of_runs(tmp_path / "m" / "dpo")[0].name == "weights/seed-0"
    (found, broken) = states_of_runs(tmp_path)
    assert [found] == shown
    assert (broken.name, broken.kind) == ("m/weights/x", "damaged")


@pytest.mark.parametrize("owner", [b"\xff", "\u00b2".encode(), b"9" * 6000, b"", b"-1", b"1\0"])
def test_a_lock_of_a_stranger(tmp_path: Path, owner: bytes) -> None:
    run = tmp_path / "m" / "dpo" / "recipe" / "seed-0"
    training_run(run, steps=1)
    (run / ".lock").write_bytes(owner)
    assert [state.kind for state in states_of_runs(tmp_path)] == ["waiting"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.jsonl", "1\n", "train.jsonl is damaged"),
        ("train.jsonl", "{}\n", "train.jsonl is damaged .step: field required"),
        ("train.jsonl", '{"step": "x", "seconds": 1}\n', "train.jsonl is damaged .step"),
        ("train.jsonl", '{"step": 1, "seconds": 1e400}\n', "train.jsonl is damaged .seconds"),
        ("train.jsonl", "9" * 6000 + "\n", "train.jsonl is damaged"),
        ("train.jsonl", "[" * 60_000 + "\n", "train.jsonl is damaged"),
        ("environment.json", "[]", "environment.json is damaged"),
        ("environment.json", '{"processes": 0}', "environment.json is damaged .processes"),
    ],
)
def test_a_record_of_a_stranger_is_one_sentence_of_that_run(tmp_path: Path, name: str, content: str, said: str) -> None:
    run = tmp_path / "m" / "dpo" / "recipe" / "seed-0"
    training_run(run, steps=2)
    (run / name).write_text(content)
    training_run(run.with_name("seed-1"), steps=2)
    damaged, other = states_of_runs(tmp_path)
    assert (damaged.kind, other.kind) == ("damaged", "waiting")
    assert re.search(said, damaged.said)


def test_what_a_run_has_not_written_yet_is_no_damage(tmp_path: Path) -> None:
    name = "m/dpo/recipe/seed-0"
    study = StudyFolder(tmp_path, "s")
    cell = Cell(name, ("run",), SIGNATURE, ("gold",))
    study.write("", [cell])
    training_run(tmp_path / name, steps=0)
    (tmp_path / name / "train.jsonl").unlink()
    (tmp_path / name / "environment.json").unlink()
    with held(tmp_path / name / ".lock"):
        assert states_of_study(study) == [State(name, "running", Progress(0, 10, "steps"), cell=cell)]
        assert states_of_runs(tmp_path) == [State(name, "running", Progress(0, 10, "steps"))]
    (tmp_path / name / ".lock").write_text("")
    # A first image that is being written does not count, and the folder of the evaluation is made before its protocol.
    (tmp_path / name / "DONE").write_text("")
    (tmp_path / name / "evaluations" / SIGNATURE).mkdir(parents=True)
    assert states_of_runs(tmp_path) == [State(name, "waiting")]
    (tmp_path / name / "evaluations" / SIGNATURE).rmdir()
    evaluation(tmp_path / name, images=1, done=False)
    (tmp_path / name / "evaluations" / SIGNATURE / "images" / ".1.png.0a.partial").write_text("")
    assert states_of_runs(tmp_path) == [State(name, "waiting", Progress(1, 8, "images"))]


def test_damage_hides_no_other_run_and_ends_no_watch(tmp_path: Path) -> None:
    names = ["m/dpo/recipe/seed-0", "m/dpo/recipe/seed-1"]
    StudyFolder(tmp_path, "s").write("", [Cell(name, ("run",), SIGNATURE, ("gold",)) for name in names])
    StudyFolder(tmp_path, "other").write("", [])
    (tmp_path / ".studies" / "other" / "cells.json").write_text("{")
    for name in names:
        training_run(tmp_path / name, steps=10)
        (tmp_path / name / "DONE").write_text("")
        evaluation(tmp_path / name, images=8, done=True)
    (tmp_path / names[0] / "evaluations" / SIGNATURE / "metrics.json").write_text("[")
    words = [sys.executable, "-m", "bench", "status", "--runs", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "damaged  .studies/other",
        f"damaged  {names[0]}",
        f"done     {names[1]}",
        "2 damaged, 1 done",
    ]
    # Nothing will change any more; but whoever holds the lock may put it right.
    assert [state.goes_on for state in states_of_runs(tmp_path)] == [False, False]
    (tmp_path / names[0] / "DONE").unlink()
    (tmp_path / names[0] / "train.jsonl").write_text("1\n")
    with held(tmp_path / names[0] / ".lock"):
        assert [(state.kind, state.goes_on) for state in states_of_runs(tmp_path)] == [
            ("damaged", True),
            ("done", False),
        ]


def test_two_lines_of_one_step_tell_no_rate(tmp_path: Path) -> None:
    run = tmp_path / "m" / "dpo" / "recipe" / "seed-0"
    training_run(run, steps=1)
    (run / "train.jsonl").write_text('{"step": 0, "seconds": 1}\n' * 2)
    os.utime(run / "train.jsonl", (0, 0))
    assert states_of_runs(tmp_path) == [State("m/dpo/recipe/seed-0", "waiting", Progress(1, 10, "steps"))]


@pytest.mark.parametrize("content", ["{}", '{"prompt_count": "x"}', "3", '{"prompt_count": 4, "generation": 3}'])
def test_a_protocol_of_a_stranger_is_one_sentence(tmp_path: Path, content: str) -> None:
    run = tmp_path / "m" / "base"
    training_run(run, steps=0)
    evaluation(run, images=1, done=False)
    (run / "evaluations" / SIGNATURE / "protocol.json").write_text(content)
    (state,) = states_of_runs(tmp_path)
    assert state.kind == "damaged"
    assert "protocol.json is damaged" in state.said


@pytest.mark.parametrize(
    ("name", "protocol"), [("../../x", SIGNATURE), ("/x", SIGNATURE), ("m/base", "../.."), ("a\0b", "0"), ("m", "")]
)
def test_a_cell_does_not_lead_elsewhere(tmp_path: Path, name: str, protocol: str) -> None:
    study = StudyFolder(tmp_path, "s")
    study.write("", [Cell(name, ("run",), protocol, ())])
    with pytest.raises(UserError, match="leads out of the folder|cannot be that of a folder"):
        states_of_study(study)


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    run = tmp_path / "m" / "dpo" / "recipe" / "seed-0"
    training_run(run, steps=1)
    assert [state.kind for state in states_of_runs(tmp_path)] == ["waiting"]
    with exclusive(run / ".lock", "works"):
        assert [state.kind for state in states_of_runs(tmp_path)] == ["running"]


def test_whoever_watches_before_there_are_runs_sees_them_come_and_end(tmp_path: Path) -> None:
    watching = [sys.executable, "-m", "bench", "status", "--watch"]
    with subprocess.Popen(watching, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there are no runs\n"
        run = tmp_path / "runs" / "m" / "dpo" / "recipe" / "seed-0"
        training_run(tmp_path / "new", steps=10)
        (tmp_path / "new" / "DONE").write_text("")
        evaluation(tmp_path / "new", images=8, done=True)
        run.parent.mkdir(parents=True)
        (tmp_path / "new").rename(run)
        said, warned = process.communicate(timeout=60)
    assert warned == "runs does not exist yet; waiting for the first run in it\n"
    assert said.splitlines() == ["done     m/dpo/recipe/seed-0", "1 done"]
    assert process.returncode == 0


def test_a_run_that_was_stopped_a_moment_ago_waits(tmp_path: Path) -> None:
    run = tmp_path / "m" / "dpo" / "recipe" / "seed-0"
    training_run(run, steps=3)
    os.utime(run / "train.jsonl", (time.time(), time.time()))
    ended = "\nwith exclusive(Path(sys.argv[1]), ''): sys.exit(143)"
    stopped = subprocess.run([sys.executable, "-c", HELD.partition("\n")[0] + ended, str(run / ".lock")], check=False)
    assert stopped.returncode == 143
    assert [state.kind for state in states_of_runs(tmp_path)] == ["waiting"]


def test_a_run_on_another_machine_counts_while_it_writes(tmp_path: Path) -> None:
    run = tmp_path / "m" / "dpo" / "recipe" / "seed-0"
    training_run(run, steps=3)
    os.utime(run / "train.jsonl", (time.time(), time.time()))
    # that a process here has the same id, as in every container, means nothing
    for owner in ("1234567890", f"{os.getpid()}", f"{os.getpid()} 01234567-89ab pid:[7]"):
        (run / ".lock").write_text(owner)
        assert [state.kind for state in states_of_runs(tmp_path)] == ["running"], owner
    (run / ".lock").write_text(f"1234567890 {here()}")  # it was killed here a moment ago
    assert [state.kind for state in states_of_runs(tmp_path)] == ["waiting"]


def test_a_process_that_has_the_id_of_an_attempt_is_not_the_attempt(tmp_path: Path) -> None:
    study, cell = StudyFolder(tmp_path, "s"), Cell("m/dpo/recipe/seed-0", ("run",), SIGNATURE, ("gold",))
    study.write("", [cell])
    study.record(cell, os.getpid())
    assert [state.kind for state in states_of_study(study)] == ["running"]
    path = study.folder / "logs" / f"{cell.name}.json"
    written = json.loads(path.read_text())
    before_a_restart = {**written, "machine": "01234567-89ab pid:[7]"}
    older_version = {"host": socket.gethostname(), "process": os.getpid(), "code": None}
    for record in (before_a_restart, {**written, "started": written["started"] - 1}, older_version):
        path.write_text(json.dumps(record))
        assert [state.kind for state in states_of_study(study)] == ["waiting"], record
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        study.record(cell, process.pid)  # it has ended, and nobody has asked how
        assert [state.kind for state in states_of_study(study)] == ["waiting"]


def test_commands_to_repeat_are_for_the_folder_that_is_looked_at(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path / "old", "s")
    cell = Cell("m/dpo/recipe/seed-0", ("run", "--algo", "dpo", "--runs", "old", "--limit", "4"), SIGNATURE, ("gold",))
    study.write("", [cell])
    study.record(cell, 1234567890, 2)
    (tmp_path / "old").rename(tmp_path / "moved")
    words = [sys.executable, "-m", "bench", "status", "--failed", "--runs", "moved"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "bench run --algo dpo --runs moved --limit 4\n"


@pytest.mark.parametrize(
    ("budget", "total"),
    [
        ({"unit": "pairs", "amount": 40}, 10),
        ({"unit": "seconds", "amount": 30}, 5),
        ({"unit": "forwards", "amount": 9}, None),
    ],
)
def test_the_end_of_a_budget(tmp_path: Path, budget: dict[str, object], total: int | None) -> None:
    training_run(tmp_path / "m" / "dpo" / "recipe" / "seed-0", steps=3, budget=budget)
    (state,) = states_of_runs(tmp_path)
    assert state.progress == Progress(3, total, "steps", 6.0)


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    training_run(tmp_path / "m" / "dpo" / "recipe" / "seed-0", steps=5000, of=6000)
    (state,) = states_of_runs(tmp_path)
    assert state.progress == Progress(5000, 6000, "steps", 6.0)


BAD_STEPS = {
    "a step of 400 digits": [{"step": 10**400, "seconds": 1}],
    "seconds of 400 digits": [{"step": 0, "seconds": 10**400}],
    "seconds before the beginning": [{"step": 0, "seconds": -1}],
}


@pytest.mark.parametrize("lines", BAD_STEPS.values(), ids=BAD_STEPS)
def test_numbers_beyond_all_counting_are_damage(tmp_path: Path, lines: list[dict[str, object]]) -> None:
    run = tmp_path / "m" / "dpo" / "recipe" / "seed-0"
    training_run(run, steps=0)
    (run / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (state,) = states_of_runs(tmp_path)
    assert (state.kind, state.progress) == ("damaged", None)
    assert f"{run}/train.jsonl is damaged" in state.said


@pytest.mark.parametrize("amount", [10**400, float("inf")])
def test_a_budget_beyond_all_counting_is_damage(tmp_path: Path, amount: float) -> None:
    training_run(tmp_path / "m" / "dpo" / "recipe" / "seed-0", steps=3, budget={"unit": "seconds", "amount": amount})
    assert [state.kind for state in states_of_runs(tmp_path)] == ["damaged"]


@pytest.mark.parametrize(("unit", "spent"), [("seconds", 5e-324), ("forwards", 10**400), ("forwards", float("nan"))])
def test_a_budget_of_which_no_run_spends_so_much_has_no_end(tmp_path: Path, unit: str, spent: float) -> None:
    run = tmp_path / "m" / "dpo" / "recipe" / "seed-0"
    training_run(run, steps=0, budget={"unit": unit, "amount": 10.0})
    lines = [{"step": step, "seconds": 5e-324, unit: spent} for step in (0, 1)]
    (run / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(run / "train.jsonl", (time.time(), time.time()))
    states = states_of_runs(tmp_path)
    assert [state.progress for state in states] == [Progress(2, None, "steps", None)]
    assert next(lines_of(states, 100)).startswith("running  m/dpo/recipe/seed-0  2 steps")


@pytest.mark.parametrize("name", ["x" * 300, "m/.hidden"])
def test_a_cell_with_a_name_of_no_folder_is_damage_of_its_study(tmp_path: Path, name: str) -> None:
    study = StudyFolder(tmp_path, "s")
    study.write("", [Cell(name, ("run",), SIGNATURE, ())])
    with pytest.raises(UserError, match=r"s/cells.json is damaged \(the name '.* in it cannot be that of a folder\)"):
        states_of_study(study)


def test_a_study_with_a_bad_name_is_damaged_and_a_hidden_one_is_none(tmp_path: Path) -> None:
    for name in (".old", "a\tb", "good"):
        StudyFolder(tmp_path, "s").write("", [])
        (tmp_path / ".studies" / "s").rename(tmp_path / ".studies" / name)
    bad, good = find_studies(tmp_path)
    with pytest.raises(UserError, match="'a.tb' cannot be that of a folder"):
        states_of_study(bad)
    assert states_of_study(good) == []


def test_what_cannot_be_opened_is_damage_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("closed", "open"):
        training_run(tmp_path / "m" / "dpo" / name / "seed-0", steps=1)
    opened = Path.open

    def refused(path: Path, *args: Any, **kwargs: Any) -> Any:
        if "closed" in path.parts:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refused)
    damaged, waiting = states_of_runs(tmp_path)
    assert (damaged.kind, waiting.kind) == ("damaged", "waiting")
    assert damaged.said.endswith("train.jsonl cannot be read (Permission denied); look again, or allow it")
