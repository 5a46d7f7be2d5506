"""Several processes of one launch: one sentence when one of them ends, and the others end too; see also tests/campaigns/launches.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from launches import launch, results, run_words


def test_a_refusal_is_printed_once_and_every_process_exits_with_2(tmp_path: Path) -> None:
    words = ["run", "--algo", "no-such", "--model", "tiny"]
    ended = launch(words, tmp_path)
    assert re.match(r"error: (process 1 of 2 ended: )?unknown algorithm 'no-such'", ended.last), ended.last
    assert ended.codes == {0: 2, 1: 2}
    mistyped = launch(["run", "--no-such"], tmp_path)
    assert mistyped.stderr.count("No such option") == 1
    assert mistyped.codes == {0: 2, 1: 2}


KILLED = (
    r"error: process 1 of 2 \(evaluation\) was killed, for example for lack of memory; run the same command to continue"
)
BROKEN = (
    r"error: process 1 of 2 ended in training \(ValueError: something is broken\); run the same command to continue"
)
SILENT = r"error: process 1 of 2 \(scoring\) has not answered for \d+ s; run the same command to continue"
FULL = r"error: the disk is full: .*"
DIVERGED = r"error: process 1 of 2 ended: the loss is nan at step 2 .*"


@pytest.mark.slow
def test_the_same_command_continues_whoever_ended(tmp_path: Path) -> None:
    straight, failed = tmp_path / "straight", tmp_path / "failed"
    whole = launch(run_words(tmp_path, straight), tmp_path)
    assert (whole.returncode, whole.codes) == (0, {0: 0, 1: 0}), whole.stderr
    assert whole.stderr.count("2 processes share the work") == 1

    words = run_words(tmp_path, failed)
    for fail, said in {
        "1:EVALUATION:kill": KILLED,
        "1:SCORING:stop": SILENT,
        "0:EVALUATION:full": FULL,
        "1:STEP:raise": BROKEN,
    }.items():
        ended = launch(words, tmp_path, fail=fail)
        assert re.fullmatch(said, ended.last), ended.stderr
        assert ended.returncode != 0
    assert "waiting: " not in ended.stderr
    assert launch(words, tmp_path).returncode == 0
    assert results(failed) == results(straight)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_is_said_once(tmp_path: Path) -> None:
    ended = launch(run_words(tmp_path, tmp_path / "runs"), tmp_path, fail="1:STEP:nan")
    assert re.fullmatch(DIVERGED, ended.last), ended.stderr
    assert ended.codes == {0: 2, 1: 2}
