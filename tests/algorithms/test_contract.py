"""What every registered algorithm promises: the contracts that `bench check` runs on anybody's."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import Algorithm, SamplingAlgorithm
from bench.core.progress import without_progress
from bench.core.registry import is_ours
from bench.experiments.contracts.algorithm import ALGORITHM_CONTRACTS
from bench.experiments.contracts.algorithm_case import AlgorithmCase
from bench.experiments.contracts.contract import Contract, NotApplicableError
from bench.experiments.contracts.objective import CONTRACTS as OBJECTIVE_CONTRACTS
from bench.experiments.contracts.objective import has_objective, steps_by_objective
from bench.experiments.contracts.small_models import PROCESSES
from bench.experiments.contracts.small_setup import SmallSetup
from bench.experiments.contracts.stepping import (
    a_small_step_lowers_the_loss,
    preferences_are_what_it_states,
    resuming_equals_never_having_stopped,
    returns_one_loss_per_pair,
    starts_at_the_reference,
    times_cover_the_process,
    training_changes_the_weights,
)
from bench.training.algorithm import ALGORITHMS

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
OURS = [name for name in ALGORITHMS if is_ours(ALGORITHMS.point(name))]


OF_THE_PROCESS = (
    returns_one_loss_per_pair,
    times_cover_the_process,
    starts_at_the_reference,
    a_small_step_lowers_the_loss,
)
"""The contracts that an algorithm can keep on one forward process and break on another."""
SAMPLE_FIRST = ("capo", "rankdpo", "seppo")
"""Algorithms that sample pictures before they train on them, which takes most of the time."""
OF_THE_OBJECTIVE = (returns_one_loss_per_pair, starts_at_the_reference, preferences_are_what_it_states)
"""The contracts with a network that an objective can break which leaves its step to `bench.PairwiseAlgorithm`."""


def applies(contract: Contract[AlgorithmCase], kind: type[Algorithm]) -> bool:
    """Whether a contract says something about an algorithm: the direction of every gradient is looked at once."""
    if contract in OBJECTIVE_CONTRACTS:
        return has_objective(kind)
    return contract is not a_small_step_lowers_the_loss or not steps_by_objective(kind)


def marks(contract: Contract[AlgorithmCase], process: str, name: str) -> tuple[pytest.MarkDecorator, ...]:
    """Slow is what repeats others.

    v differs from epsilon in its target alone; on flow, how losses are cut, permuted and repeated and how the harness trains is that
    of epsilon; objectives share one way to step, which is dpo's; and what resumes to the same weights has changed them, or else a
    small step would not have lowered its loss.  Algorithms that sample resume in tests/training as well.
    """
    if not process or (name == "dpo" and process != "v_prediction"):
        return ()
    shared = steps_by_objective(ALGORITHMS.get(name))
    wanted: tuple[Contract[AlgorithmCase], ...] = OF_THE_OBJECTIVE if shared else ALGORITHM_CONTRACTS
    if process == "flow":
        wanted = () if shared or name in SAMPLE_FIRST else OF_THE_PROCESS
    if contract is resuming_equals_never_having_stopped and issubclass(ALGORITHMS.get(name), SamplingAlgorithm):
        wanted = ()
    repeated = process == "v_prediction" or contract is training_changes_the_weights or contract not in wanted
    return (pytest.mark.slow,) if repeated else ()


CHECKS = [
    pytest.param(
        contract, process, name, id=f"{contract.name}-{process or 'class'}-{name}", marks=marks(contract, process, name)
    )
    for name in OURS  # outermost, so that a process of pytest-xdist gets whole algorithms: their data is prepared once
    for process in ("", *PROCESSES)
    for contract in ALGORITHM_CONTRACTS
    if process in (contract.settings or ("",)) and applies(contract, ALGORITHMS.get(name))
]
Cases = Callable[[str, str], AlgorithmCase]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cases]:
    """The case of an algorithm on a process; a contract about the class alone uses no model."""
    folder = tmp_path_factory.mktemp("contracts")

    @functools.cache
    def setup(process: str) -> SmallSetup:
        made = SmallSetup(folder / process, PROCESSES[process])
        assert made.model().process.prediction_type == process
        return made

    @functools.cache
    def made(name: str, process: str) -> AlgorithmCase:
        algorithm: Algorithm = ALGORITHMS.get(name)()
        return AlgorithmCase(name, algorithm, setup(process or "epsilon"))

    with without_progress():
        yield made


def test_every_algorithm_of_this_distribution_is_looked_at_here() -> None:
    assert set(OURS) == tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["bench.algorithms"].keys()


@pytest.mark.parametrize(("contract", "process", "name"), CHECKS)
def test_it_keeps_the_contract(contract: Contract[AlgorithmCase], process: str, name: str, case: Cases) -> None:
    try:
        contract.check(case(name, process))
    except NotApplicableError:
        assert issubclass(
            ALGORITHMS.get(name), SamplingAlgorithm
        )  # tests/training/test_online.py and test_reward_gradients.py look at their steps


@pytest.mark.parametrize(
    ("contract", "name", "reason"),
    [
        *((contract, "kto", "a step of its own") for contract in OBJECTIVE_CONTRACTS),
        (a_small_step_lowers_the_loss, "dpo", "on the objective"),
    ],
)
def test_what_does_not_apply_says_why(contract: Contract[AlgorithmCase], name: str, reason: str, case: Cases) -> None:
    with pytest.raises(NotApplicableError, match=reason):
        contract.check(case(name, "epsilon"))


def test_a_wrapper_needs_the_statistics_that_its_objective_needs() -> None:
    npo = ALGORITHMS.get("npo")
    assert not npo(objective="dpo").needs_batch_stats  # type: ignore[call-arg]
    assert npo(objective="kto").needs_batch_stats  # type: ignore[call-arg]
