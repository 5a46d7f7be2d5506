"""`--algo all`: every algorithm that can run does, and a sentence says which cannot, and why; one that is named must run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

import pytest

from bench.training.algorithm import ALGORITHMS
from tests.cli.conftest import CommandLine

BY_SCORES = {"awm", "d3po", "ddpo", "dpok", "flow-grpo", "nft", "npo-joint", "rankdpo", "spo", "tailorpo"}
"""Algorithms whose field ``rewards`` may be any single metric."""


def run_words(command: CommandLine, *words: str) -> list[str]:
    given = ("--model", "tiny", "--data", str(command.data), "--prompts", str(command.prompts), "--metrics", "gold")
    return command.arguments("run", *given, *words)


def commands_by_algorithm(printed: str) -> dict[str, list[str]]:
    """The words of each printed command that trains."""
    commands = [shlex.split(line) for line in printed.splitlines()]
    return {words[words.index("--algo") + 1]: words for words in commands if "--algo" in words}


def left_out(errors: str) -> dict[str, str]:
    """The sentence about each algorithm that is left out."""
    lines = re.findall(r"^note: ([\w, -]+) (?:is|are) left out: (.+)$", errors, re.MULTILINE)
    return {name: why for names, why in lines for name in names.split(", ")}


@pytest.mark.parametrize(
    ("words", "without"),
    [
        (
            ("--budget", "pairs=8"),
            {"apo": "apo would train in rounds, each of which takes the same number of steps; leave --budget out"},
        ),
        (
            ("--evaluate-every", "2"),
            {
                "apo": "--evaluate-every and --stop-when follow a single training",
                **dict.fromkeys(
                    ("npo", "npo-joint", "self-npo"), "npo trains weights for the unconditional branch of guidance"
                ),
            },
        ),
        (
            ("--set", "rewards=gold"),
            {
                **dict.fromkeys(set(ALGORITHMS) - BY_SCORES, "apo has no field 'rewards'"),
                "capo": "give 2 or more",
                "draft": "draft needs a gradient of the reward, but the metric 'gold' does not have one",
                "refl": "draft needs a gradient of the reward",
                "tailorpo-g": "draft needs a gradient of the reward",
            },
        ),
    ],
)
def test_those_that_can_run_do_and_the_others_are_named(
    command: CommandLine, words: tuple[str, ...], without: Mapping[str, str]
) -> None:
    done = command.run(run_words(command, "--algo", "all", *words, "--print-commands"))
    assert done.returncode == 0, done.stderr
    notes = left_out(done.stderr)
    assert notes.keys() == without.keys()
    for name, why in without.items():
        assert why in notes[name]
    assert list(commands_by_algorithm(done.stdout)) == [name for name in ALGORITHMS if name not in without]


def test_one_that_is_named_beside_all_must_run(command: CommandLine) -> None:
    done = command.run(run_words(command, "--algo", "all,apo", "--budget", "pairs=8"))
    assert done.returncode == 2
    assert "error: apo would train in rounds" in done.stderr
    assert not (command.folder / "runs/tiny").exists()


def test_all_of_which_none_can_run_is_refused(command: CommandLine) -> None:
    for words in (run_words(command), command.arguments("plan", "--model", "tiny")):
        done = command.run([*words, "--algo", "all", "--set", "bta=1"])
        assert (done.returncode, done.stdout) == (2, "")
        assert "error: no algorithm can run: apo, awm, " in done.stderr
        assert " are left out: apo has no field 'bta'\n" in done.stderr


def test_a_plan_of_all_has_what_a_run_of_all_trains(command: CommandLine) -> None:
    """Two algorithms have a field ``delta``, of which one does not train on the pairs that rounds make."""
    sets = ("--set", "delta=0.5", "--set", "rounds.number=2")
    planned = command.run(command.arguments("plan", "--algo", "all", "--model", "tiny", *sets))
    assert planned.returncode == 0, planned.stderr
    notes = left_out(planned.stderr)
    assert notes["tailorpo-g"].startswith("tailorpo-g does not train on pairs, which --rounds makes")
    assert notes["dpo"] == "apo has no field 'delta'"
    assert notes.keys() == set(ALGORITHMS) - {"bcr"}
    assert re.findall(r"([\w-]+) on tiny", planned.stdout) == ["bcr"]
    named = command.run(command.arguments("plan", "--algo", "tailorpo-g", "--model", "tiny", *sets))
    assert (named.returncode, named.stdout) == (2, "")
    assert "error: tailorpo-g does not train on pairs" in named.stderr


def test_a_run_of_all_trains_and_a_file_of_all_gives_an_entry_of_its_own_other_settings(command: CommandLine) -> None:
    sets = ("steps=1", "global_batch_size=2", "warmup_steps=0", "label_smoothing=0.2")
    words = [word for each in sets for word in ("--set", each)]
    done = command.run(run_words(command, "--algo", "all", "--sampling-steps", "1", *words))
    assert done.returncode == 0, done.stderr
    assert left_out(done.stderr).keys() == set(ALGORITHMS) - {"cdpo"}
    assert [
        path.parts[-4] for path in command.folder.glob("runs/tiny/*/*/seed-0/DONE") if "base" not in path.parts
    ] == ["cdpo"]

    saved = command.run(run_words(command, "--algo", "dpo,all", "--budget", "pairs=8", "--save", "all.toml"))
    assert saved.returncode == 0, saved.stderr
    file = command.folder / "all.toml"
    file.write_text(file.read_text() + "[algorithms.settings]\nlearning_rate = 3e-6\n")  # of the last entry, all
    printed = command.run(command.arguments("run", "all.toml", "--print-commands"))
    assert printed.returncode == 0, printed.stderr
    assert left_out(printed.stderr).keys() == {"apo"}
    commands = commands_by_algorithm(printed.stdout)
    assert list(commands) == ["dpo", *(name for name in ALGORITHMS if name not in ("dpo", "apo"))]
    assert [name for name, words in commands.items() if "learning_rate=3e-06" not in words] == ["dpo"]
