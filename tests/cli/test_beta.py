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


def test_the_value_is_for_those_that_share_ours_and_smpo_has_its_own(command: CommandLine) -> None:
    done = command.run(command.arguments("beta", "2000", "--from", "smpo"))
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()[:3]
    assert (first, third) == ("beta=20000", "for smpo only: beta=2000")
    names = second.removeprefix("for ").split(", ")
    assert {"dpo", "hinge", "kto", "inpo"} <= set(names)
    assert not {"smpo", "simpo", "cpo", "mapo", "ipo", "sft"} & set(names)
    other = command.run(command.arguments("beta", "2000", "--from", "diffusion-dpo"))
    assert other.stdout.splitlines()[1] == second
    assert "alone" not in other.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["5000", "--from", "diffusers-sd"], "did you mean 'diffusers-sdxl' or 'diffusers-sd15'"),
        (["5", "--from", "dpo-paper"], "--elements 16384 for SD 1.5"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(command: CommandLine, words: list[str], sentence: str) -> None:
    done = command.run(command.arguments("beta", *words))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
