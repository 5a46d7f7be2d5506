"""``bench check`` in a process of its own."""

from __future__ import annotations

import re

import pytest

from bench.experiments.contracts.algorithm import ALGORITHM_CONTRACTS
from bench.experiments.contracts.metric import METRIC_CONTRACTS

from .conftest import CommandLine


@pytest.mark.slow  # tests/docs/test_examples.py checks a plug-in
def test_an_algorithm_is_checked_against_every_contract_and_nothing_is_left_on_disk(command: CommandLine) -> None:
    done = command.run(command.arguments("check", "algorithm", "sft"))
    assert (done.returncode, done.stderr) == (0, "")
    *lines, summary = done.stdout.splitlines()
    assert len(lines) == len(ALGORITHM_CONTRACTS)
    for line, contract in zip(lines, ALGORITHM_CONTRACTS, strict=True):
        outcome, _, rest = line.partition("  ")
        assert outcome in ("held", "not applicable")
        assert rest.strip().startswith(contract.sentence)
    assert "not applicable  With the reference's own predictions the objective is" in done.stdout
    assert re.fullmatch(
        rf"algorithm sft: {len(lines)} contracts in \d+ s: \d+ held, 0 broken, 4 not applicable", summary
    )
    assert list(command.folder.iterdir()) == []


@pytest.mark.slow  # tests/metrics/test_scorer_contract.py runs the contracts
def test_a_metric_is_checked_with_the_checkpoint_of_a_model(command: CommandLine) -> None:
    done = command.run(command.arguments("check", "metric", "gold", "--model", "tiny"))
    assert (done.returncode, done.stderr) == (0, "")
    *lines, summary = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["held"] * (len(METRIC_CONTRACTS) - 2) + ["not applicable"] * 2
    assert re.fullmatch(
        rf"metric gold: {len(lines)} contracts in \d+ s: {len(lines) - 2} held, 0 broken, 2 not applicable", summary
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("algorithm", "dpoo"), "unknown algorithm 'dpoo': did you mean 'dpo'"),
        (("metric", "golden"), "unknown metric 'golden': did you mean 'gold'"),
        (("metric", "gold"), "metric 'gold' knows the truth for the tiny world only"),
        (("metric", "clip", "--model", "tiny"), "model 'tiny' has no checkpoint of 'clip'; give --checkpoint, or leave --model out"),
        (("metric", "aesthetic", "--checkpoint", "/nowhere"), "/nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_one_sentence(command: CommandLine, words: tuple[str, ...], sentence: str) -> None:
    done = command.run(command.arguments("check", *words))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("kind", "words"),
    [("algorithm", ["micro-batch", "resumed", "Exit code 0"]), ("metric", ["--checkpoint", "batch", "2:"])],
)
def test_help_says_what_is_checked(command: CommandLine, kind: str, words: list[str]) -> None:
    done = command.run(command.arguments("check", kind, "--help"))
    assert done.returncode == 0
    assert all(word in done.stdout for word in words)
