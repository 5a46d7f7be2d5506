"""``--limit``: a trial on few prompts and pairs, which says so wherever it is shown."""

from __future__ import annotations

import json

import pytest

from bench.records.runs import RunFolder
from tests.cli.conftest import CommandLine


def test_a_trial_uses_few_prompts_and_pairs_and_is_marked(command: CommandLine) -> None:
    words = [*command.train_words(), "--metrics", "aesthetic", "--limit", "5"]
    done = command.run(words)
    assert done.returncode == 0, done.stderr
    (run,) = command.folder.glob("runs/tiny/dpo/*/seed-0")
    config = json.loads((run / "config.json").read_text())
    assert config["limit"] == 5
    assert config["resolved"]["data"]["pairs"] == 5
    (evaluation,) = run.glob("evaluations/*")
    assert len(list((evaluation / "images").iterdir())) == 5
    assert [line["pairs"] for line in map(json.loads, (run / "train.jsonl").read_text().splitlines())][-1] == 24

    report = command.run(command.arguments("report", "--runs", str(command.folder / "runs")))
    assert report.returncode == 0, report.stderr
    assert "at most the first 5 evaluation prompts and training pairs were used" in " ".join(report.stdout.split())
    # the hash of --data and --limit in the folder's name is no part of the label
    assert RunFolder(run).config().label == "Diffusion-DPO (steps=6, global_batch_size=4, warmup_steps=0)"

    # the same limit is found done
    again = command.run(words)
    assert again.returncode == 0
    assert len(list(command.folder.glob("runs/tiny/dpo/*/seed-0"))) == 1


@pytest.mark.slow
def test_another_limit_is_another_run_and_another_evaluation(command: CommandLine) -> None:
    words = [*command.train_words(), "--metrics", "aesthetic", "--limit", "5"]
    assert command.run(words).returncode == 0
    assert not list(command.folder.glob("runs/.cache/*/posterior-mirrored-*.npy"))
    other = command.run([*words[:-1], "4", "--set", "horizontal_flip=pair"])
    assert other.returncode == 0, other.stderr
    assert len(list(command.folder.glob("runs/tiny/dpo/*/seed-0"))) == 2

    # an evaluation alone says so too, and never shares a table with a full one of the same prompts
    few = ("--sampling-steps", "2", "--metrics", "aesthetic", "--limit", "6")
    whole = command.run(command.arguments("eval", "--model", "tiny", "--prompts", str(command.prompts), *few))
    assert whole.returncode == 0, whole.stderr
    signatures = {path.name for path in command.folder.glob("runs/tiny/base/evaluations/*")}
    assert len(signatures) == 3
    assert len(list(command.folder.glob("runs/.cache/*/posterior-mirrored-*.npy"))) == 1
    refused = command.run([*words[:-1], "1"])
    assert refused.returncode == 2
