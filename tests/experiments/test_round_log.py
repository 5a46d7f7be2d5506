"""The log of a run in rounds, of files as rounds leave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from bench.core.files import append_lines, read_lines, write_json
from bench.experiments.round_log import FollowingLog, RoundsLog
from bench.records.runs import RunFolder


def line(step: int) -> str:
    return json.dumps({"step": step, "loss": 0.5, "pairs": 4 * (step + 1), "seconds": 1.5 * (step + 1)})


def place_of(folder: Path, steps: int) -> RunFolder:
    place = RunFolder(folder)
    place.folder.mkdir(parents=True)
    append_lines(place.train_log, [line(step) for step in range(steps)])
    write_json(place.folder / "prepared.json", {"samples": 8, "reward_calls": 9, "seconds": 10.0, "forwards": 320})
    ledger = {
        "pairs": 4 * steps, "policy_forwards": 0, "policy_backwards": 0, "reference_forwards": 320, "flops": 7, "seconds": 1.5 * steps,
        "peak_memory_bytes": 100 + steps, "samples": 0, "reward_calls": 0,
    }  # fmt: skip
    write_json(place.folder / "ledger.json", ledger)
    return place


def test_the_log_and_the_cost_of_finished_rounds(tmp_path: Path) -> None:
    log = RoundsLog().then(place_of(tmp_path / "1", 3)).then(place_of(tmp_path / "2", 2))
    assert [(each["step"], each["round"], each["pairs"], each["seconds"]) for each in log.lines] == [
        (0, 1, 4, 11.5), (1, 1, 8, 13.0), (2, 1, 12, 14.5), (3, 2, 16, 26.0), (4, 2, 20, 27.5),
    ]  # fmt: skip
    assert log.total == {
        "pairs": 20, "policy_forwards": 0, "policy_backwards": 0, "reference_forwards": 640, "flops": 14, "seconds": 27.5,
        "peak_memory_bytes": 103, "samples": 16, "reward_calls": 18,
    }  # fmt: skip


@pytest.mark.parametrize("main", [True, False])
def test_a_step_of_a_round_is_at_once_one_of_the_run(tmp_path: Path, main: bool) -> None:
    run, place = RunFolder(tmp_path), place_of(tmp_path / "2", 3)
    append_lines(run.train_log, [line(step) for step in range(9)])  # of a command that was killed
    follow = FollowingLog(run, place, RoundsLog().then(place_of(tmp_path / "1", 2)), main=main)
    network = nn.Identity()
    assert not follow(3, 12, network, last=False)
    append_lines(place.train_log, [line(3)])
    assert not follow(4, 16, network, last=True)
    found = [(each["step"], each.get("round"), each["pairs"]) for each in read_lines(run.train_log)]
    if main:
        assert found == [(0, 1, 4), (1, 1, 8), (2, 2, 12), (3, 2, 16), (4, 2, 20), (5, 2, 24)]
    else:
        assert len(found) == 9
