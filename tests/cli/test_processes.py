"""The real command line on two processes: split weights, and images and scores shared."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import PROMPTS, CommandLine

SPLIT = [sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp", "--num_processes", "2", "-m"]
WORDS = ("--set", "steps=2", "--metrics", "aesthetic")


def training(runs: Path) -> list[dict[str, float]]:
    (log,) = runs.glob("tiny/dpo/*/seed-0/train.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.slow  # tests/training/test_distributed.py trains with two processes
def test_two_processes_split_the_weights_the_images_and_the_scores(command: CommandLine) -> None:
    runs = {name: command.folder / name for name in ("one", "two")}
    for name in runs:
        words = [word for word in command.train_words(runs=name) if word != "steps=6"]
        words.remove("--set")
        done = command.run([*words, *WORDS] if name == "one" else [*SPLIT, *words[2:], *WORDS])
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("done: ") == 1

    # training to float32's rounding in another order
    one, two = (training(folder) for folder in runs.values())
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-3)
    assert two[0]["gradient_norm"] == pytest.approx(one[0]["gradient_norm"], rel=1e-4)

    # the base's images and scores to the last bit
    files = {
        name: {path.relative_to(folder): path.read_bytes() for path in folder.glob("tiny/base/evaluations/**/*.*")}
        for name, folder in runs.items()
    }
    assert len([path for path in files["one"] if path.suffix == ".png"]) == PROMPTS
    assert files["two"].keys() == files["one"].keys()
    assert [str(path) for path, content in files["one"].items() if files["two"][path] != content] == []
