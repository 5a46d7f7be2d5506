"""`bench reward`, and its result as a reward and as a judge, by the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.records.reward_models import read_reward_model
from bench.records.runs import RunFolder
from bench.tiny import TINY
from tests.cli.conftest import CommandLine

NAME = "fitted:rewards/mine"


def reward_words(command: CommandLine, *words: str) -> list[str]:
    return command.arguments(
        "reward", "--scorer", "pickscore", "--model", "tiny", "--data", str(command.data), "--output", "rewards/mine",
        "--steps", "2", "--batch", "4", *words,
    )  # fmt: skip


def test_a_reward_model_is_fitted_trained_on_and_marked(command: CommandLine) -> None:
    done = command.run(reward_words(command))
    assert done.returncode == 0, done.stderr
    record = read_reward_model(command.folder / "rewards/mine")
    assert record is not None
    assert (
        f"done: {NAME} agrees with {record.held_out.after:.1%} of {record.held_out.pairs} held-out pairs" in done.stderr
    )
    again = command.run(reward_words(command))
    assert again.returncode == 0
    assert f"done: {NAME}" in again.stderr
    other = command.run(reward_words(command, "--part", "whole"))
    assert other.returncode == 2
    assert "differs in settings.part" in other.stderr

    sets = ("steps=1", f"rewards={NAME}", "group=2", "sampling_steps=2", "trained=1", "within=2", "clip=1e-2")
    words = command.train_words("--name", "mine", "--metrics", f"gold,{NAME}", algo="ddpo")
    place = words.index("steps=6")
    del words[place - 1 : place + 1]
    trained = command.run([*words, *(word for setting in sets for word in ("--set", setting))])
    assert trained.returncode == 0, trained.stderr
    config = RunFolder(command.folder / "runs/tiny/ddpo/mine/seed-0").config()
    assert config.resolved.code is not None
    assert f"metric {NAME}" in config.resolved.code
    assert config.trained_on == (NAME, "pickscore")  # also the scorer that it was made from
    assert config.resolved.rewards is not None
    assert config.resolved.rewards[NAME].keys() == {
        "version",
        "scorer",
        "base",
        "weights",
        "scale",
    }  # code is declared apart
    assert config.resolved.rewards[NAME]["weights"] == record.weights
    shown = command.run(command.arguments("report", "--runs", "runs", "--format", "json", "--primary", NAME))
    assert shown.returncode == 0, shown.stderr
    row = json.loads(shown.stdout)["rows"][1]
    assert row["scores"][NAME]["trained_on"] is True
    assert row["over_reference"] is None  # never by the model that trained it

    for other in ("./rewards/mine", "rewards/../rewards/mine/", str(command.folder / "rewards/mine")):
        refused = command.run(
            [
                *command.train_words("--name", "other", "--set", "group=2", algo="ddpo"),
                "--set",
                f"rewards=fitted:{other}",
            ]
        )
        assert refused.returncode == 2
        assert f"fitted:{other} is called {NAME}; write it so everywhere" in refused.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "--algo", "ddpo", "--model", "tiny", "--set", "rewards=fitted:nowhere"), "no finished reward model"),
        (("reward", "--scorer", "gold", "--data", "pairs.parquet", "--output", "out"), "cannot be fitted"),
        (("reward", "--scorer", "pickscore", "--data", "x", "--output", "out", "--steps", "0"), "steps=0"),
        (
            ("reward", "--scorer", "pickscore", "--output", "out"),
            "give --data FILE, or a --model that has data of its own",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(command: CommandLine, words: tuple[str, ...], says: str) -> None:
    done = command.run(command.arguments(*words))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(command.folder / "out").exists()


@pytest.mark.parametrize("output", ["a.txt", "a.txt/mine"])
def test_an_output_that_is_a_file_is_refused_before_the_data_are_read(command: CommandLine, output: str) -> None:
    (command.folder / "a.txt").write_text("a bee\n")
    words = ("reward", "--scorer", "aesthetic", "--model", "tiny", "--data", "no-such-data", "--output", output)
    done = command.run(command.arguments(*words))
    assert done.returncode == 2
    assert f"error: {output} " in done.stderr
    assert "give another --output or --runs" in done.stderr
    assert "Traceback" not in done.stderr
    assert (command.folder / "a.txt").read_text() == "a bee\n"


def test_without_data_it_is_fitted_to_those_of_the_model(command: CommandLine) -> None:
    words = command.arguments("reward", "--scorer", "aesthetic", "--model", "tiny", "--output", "own", "--steps", "1")
    done = command.run([*words, "--limit", "64"])
    assert done.returncode == 0, done.stderr
    record = read_reward_model(command.folder / "own")
    assert record is not None
    given = command.run([*words, "--limit", "64", "--data", str(TINY.data)])
    assert given.returncode == 0, given.stderr  # the same fit, which is done
    assert f"of {record.held_out.pairs} held-out pairs" in given.stderr
