"""An algorithm with a small model to run it on, on which its contracts are checked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.preferences import PreferenceData
from bench.experiments.contracts.contract import Check, Contract, NotApplicableError
from bench.experiments.contracts.small_models import PROCESSES
from bench.experiments.contracts.small_setup import SmallSetup
from bench.records.runs import RunFolder
from bench.training.algorithm import Algorithm, StepOutput
from bench.training.online import SamplingAlgorithm
from bench.training.policy import Policy

ROWS = (3, 17, 4, 8, 25)
"""The row numbers, in the data, of a step's pairs."""

EPSILON = ("epsilon",)
EVERY_PROCESS = tuple(PROCESSES)


@dataclasses.dataclass(frozen=True)
class AlgorithmCase:
    """An algorithm with its default fields on a small model.

    Attributes:
        name: the algorithm's registered name.
        algorithm: the algorithm.
        setup: the small model with its data.
    """

    name: str
    algorithm: Algorithm
    setup: SmallSetup

    @functools.cached_property
    def data(self) -> PreferenceData:
        """The pairs as the algorithm's `prepare` returns them."""
        return self.algorithm.prepare(self.setup.data, self.setup.context())

    def step(self, policy: Policy, *, rows: Sequence[int] = ROWS, places: Sequence[int] | None = None) -> StepOutput:
        """One step on a global batch of ``rows``, or on the pairs at some positions of it.

        Raises:
            NotApplicableError: the algorithm makes its batches itself.
        """
        self.refuse_online()
        return self.setup.step(self.algorithm, rows, policy, self.data, places=places)

    def refuse_online(self) -> None:
        """Raise a `NotApplicableError` if the algorithm makes its batches itself."""
        if isinstance(self.algorithm, SamplingAlgorithm):
            raise NotApplicableError("the algorithm trains on images of its own, not on rows of the data")

    def moved_policy(self) -> Policy:
        """A policy that differs slightly from its reference."""
        policy = self.setup.reset_policy()
        source = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for _, parameter in policy.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=source), alpha=1e-4)
        return policy

    def train(self, where: str, **settings: Any) -> RunFolder:
        """Train with the harness's own loop, or resume, with a new algorithm object as in a new command."""
        algorithm = type(self.algorithm).model_validate(self.algorithm.model_dump())
        return self.setup.train(
            self.setup.folder / "runs" / self.name / where,
            algorithm,
            data=algorithm.prepare(self.setup.data, self.setup.context()),
            learning_rate=1e-3,
            **settings,
        )

    @functools.cached_property
    def trained(self) -> RunFolder:
        """A run of two steps."""
        return self.train("straight", steps=2)


def contract(*settings: str) -> Callable[[Check[AlgorithmCase]], Contract[AlgorithmCase]]:
    """Make a contract from a function; ``settings`` are the forward processes it is checked on, none if it needs no model."""
    return lambda check: Contract(check, settings)


def gradients(parameters: Sequence[tuple[str, nn.Parameter]]) -> Tensor:
    """The gradients of all parameters, concatenated; zeros for parameters without one."""
    return torch.cat(
        [
            torch.zeros(parameter.numel()) if parameter.grad is None else parameter.grad.flatten()
            for _, parameter in parameters
        ]
    )
