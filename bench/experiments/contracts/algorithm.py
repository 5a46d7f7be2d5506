"""The contracts of an algorithm, and how an installed one is checked against them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.core.validation import build
from bench.experiments.contracts import description, objective, stepping
from bench.experiments.contracts.algorithm_case import AlgorithmCase
from bench.experiments.contracts.contract import Contract, Finding, check_all
from bench.experiments.contracts.small_models import PROCESSES
from bench.experiments.contracts.small_setup import SmallSetup
from bench.training.algorithm import ALGORITHMS

ALGORITHM_CONTRACTS: tuple[Contract[AlgorithmCase], ...] = (
    *description.CONTRACTS,
    *objective.CONTRACTS,
    *stepping.CONTRACTS,
)


def check_algorithm(name: str) -> Iterator[Finding]:
    """Check a registered algorithm with its default fields; yields one finding per contract as soon as it is made.

    Raises:
        UserError: there is no such algorithm, or a field has no default.
    """
    algorithm = build(ALGORITHMS.get(name), {}, name)
    with tempfile.TemporaryDirectory(prefix="bench-check-") as folder:

        @functools.cache
        def case(process: str) -> AlgorithmCase:
            model = PROCESSES[
                process or "epsilon"
            ]  # a contract about the class alone needs no model, and none is written
            return AlgorithmCase(name, algorithm, SmallSetup(Path(folder) / process, model))

        yield from check_all(ALGORITHM_CONTRACTS, case)
