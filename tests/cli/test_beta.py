from __future__ import annotations

import pytest

from tests.cli.conftest import CommandLine


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["2500", "--from", "diffusers-sd15"], "beta=5000"),
        (["5000", "--from", "diffusion-dpo"], "beta=5000"),
        (["0.06103515625", "--from", "dpo-paper", "--elements", "16384"], "beta=2000"),
    ],
)
def test_the_first_line_can_be_given_to_set(command: CommandLine, words: list[str], line: str) -> None:
    done = command.run(command.arguments("beta", *words))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == line


def test_every_value_stands_above_the_algorithms_it_is_for(command: CommandLine) -> None:
    done = command.run(command.arguments("beta", "2000", "--from", "smpo"))
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = done.stdout.splitlines()[:4]
    assert (first, third, fourth) == ("beta=20000", "beta=2000", "for smpo")
    names = second.removeprefix("for ").split(", ")
    assert {"dpo", "hinge", "inpo"} <= set(names)
    assert not {"smpo", "simpo", "cpo", "mapo", "ipo", "sft", "dspo", "kto"} & set(names)
    other = command.run(command.arguments("beta", "2000", "--from", "diffusion-dpo"))
    assert other.stdout.splitlines()[:4] == ["beta=2000", second, "beta=200", "for smpo"]


@pytest.mark.parametrize("convention", ["kto", "dspo-sd15"])
def test_a_beta_of_something_else_is_for_that_algorithm_alone(command: CommandLine, convention: str) -> None:
    done = command.run(command.arguments("beta", "0.25", "--from", convention))
    assert done.returncode == 0, done.stderr
    expected = {"kto": ["beta=0.5", "for kto"], "dspo-sd15": ["beta=0.25", "for dspo"]}
    assert done.stdout.splitlines()[:2] == expected[convention]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["5000", "--from", "diffusers-sd"], "did you mean 'diffusers-sdxl' or 'diffusers-sd15'"),
        (["5", "--from", "dpo-paper"], "--elements 16384 for SD 1.5"),
        (["inf", "--from", "diffusion-dpo"], "a beta is a finite number above 0"),
        (["nan", "--from", "diffusion-dpo"], "a beta is a finite number above 0"),
        (["-5", "--from", "diffusion-dpo"], "a beta is a finite number above 0"),
        (["0", "--from", "diffusion-dpo"], "a beta is a finite number above 0"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(command: CommandLine, words: list[str], sentence: str) -> None:
    done = command.run(command.arguments("beta", *words))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
