from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import UserError
from bench.tiny.building.stages import Places, Stage, run_stages


class Recorder:
    """Stages that write a text made of their recipe and inputs, and count how often they ran."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def stage(self, name: str, text: str, *needs: str, steps: int = 0) -> Stage:
        def make(places: Places) -> None:
            self.made.append(name)
            parts = [(folder / "text").read_text() for folder in places.inputs.values()]
            (places.output / "text").write_text("+".join([text, *parts]))

        return Stage(name, make, {"text": text}, steps, needs)


def test_a_stage_is_made_again_only_when_its_inputs_change(tmp_path: Path) -> None:
    recorder = Recorder()
    chain = [recorder.stage("a", "A"), recorder.stage("b", "B", "a"), recorder.stage("c", "C")]
    folders = run_stages(chain, tmp_path, str)
    assert (folders["b"] / "text").read_text() == "B+A"
    run_stages(chain, tmp_path, str)
    assert recorder.made == ["a", "b", "c"]
    run_stages([recorder.stage("a", "new A"), *chain[1:]], tmp_path, str)
    assert recorder.made == ["a", "b", "c", "a", "b"]
    assert (tmp_path / "b" / "text").read_text() == "B+new A"
    run_stages([recorder.stage("a", "new A"), chain[1], recorder.stage("c", "C", steps=5)], tmp_path, str)
    assert recorder.made[5:] == ["c"]


def test_what_a_change_does_not_alter_is_not_made_again(tmp_path: Path) -> None:
    recorder = Recorder()
    run_stages([recorder.stage("a", "A"), recorder.stage("b", "B", "a")], tmp_path, str)
    run_stages([recorder.stage("a", "A", steps=9), recorder.stage("b", "B", "a")], tmp_path, str)
    assert recorder.made == ["a", "b", "a"]  # a was made again, with the same result


def interrupted(places: Places) -> None:
    (places.output / "half").write_text("half")
    (places.state / "progress").write_text("17")
    raise KeyboardInterrupt


def test_an_interrupted_stage_leaves_no_result_and_finds_its_state(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_stages([Stage("a", interrupted, {"x": 1}, steps=10)], tmp_path, str)
    assert not (tmp_path / "a").exists()

    def finish(places: Places) -> None:
        (places.output / "text").write_text("from " + (places.state / "progress").read_text())

    run_stages([Stage("a", finish, {"x": 1}, steps=20)], tmp_path, str)  # the length may change
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["stage.json", "text"]
    assert (tmp_path / "a" / "text").read_text() == "from 17"


def test_unfinished_work_of_another_recipe_is_neither_continued_nor_lost(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_stages([Stage("a", interrupted, {"x": 1})], tmp_path, str)
    with pytest.raises(UserError, match="unfinished work of another recipe"):
        run_stages([Stage("a", interrupted, {"x": 2})], tmp_path, str)
    assert (tmp_path / "state" / "a" / "progress").read_text() == "17"


FIT = """
import os, sys, signal
from pathlib import Path
import torch
from torch import nn
from bench.tiny.building import fitting
from bench.tiny.building.stages import Stage, run_stages
fitting.CHECKPOINT_SECONDS = 0.0
kill_at = int(sys.argv[2])

def make(places):
    torch.manual_seed(0)
    line = nn.ModuleDict({"line": nn.Linear(3, 1)})
    def loss(step):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return (line["line"](rows) - rows.sum(1, keepdim=True)).square().mean()
    settings = fitting.FitSettings(steps=40)
    fitting.fit("line", line, loss, settings, places.state)
    (places.output / "weights").write_text(str(line["line"].weight.tolist()))

run_stages([Stage("first", make), Stage("second", make, needs=["first"])], Path(sys.argv[1]), print)
"""


@pytest.mark.slow
def test_a_build_that_is_killed_in_each_stage_ends_as_one_that_never_was(tmp_path: Path) -> None:
    def build(work: Path, kill_at: int) -> int:
        return subprocess.run(
            [sys.executable, "-c", FIT, str(work), str(kill_at)], env=os.environ, capture_output=True, check=False
        ).returncode

    assert build(tmp_path / "straight", -1) == 0
    assert build(tmp_path / "killed", 25) == -signal.SIGKILL  # in the first stage
    assert not (tmp_path / "killed" / "first").exists()
    assert build(tmp_path / "killed", 15) == -signal.SIGKILL  # past step 15 of the first, so in the second
    assert (tmp_path / "killed" / "first").exists()
    assert build(tmp_path / "killed", -1) == 0
    for name in ("first", "second"):
        one, other = ((tmp_path / run / name / "weights").read_text() for run in ("straight", "killed"))
        assert one == other
