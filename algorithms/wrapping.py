"""Base classes of algorithms that change another one: a field names it, and everything else is passed through."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor

from bench import (
    ALGORITHMS,
    Algorithm,
    Need,
    Noised,
    PairBatch,
    PairErrors,
    PairPredictions,
    PairwiseAlgorithm,
    Policy,
    PreferenceData,
    PrepareContext,
    build,
)

PASSED_ON = {Need.IMAGES, Need.REWARD}
"""Needs of an objective that a wrapper without them meets: pairs are images, and `trained_on` names the rewards."""


class Wrapper(Algorithm):
    """An algorithm around another registered one, the objective."""

    objective: str = Field(default="dpo", description="the registered algorithm to change")
    objective_fields: dict[str, Any] = Field(
        default={}, description="fields of the objective, for example --set objective_fields.beta=500"
    )

    fields_of: ClassVar[Mapping[str, str]] = {"objective": "objective_fields"}

    @model_validator(mode="after")
    def _objective_needs_no_more(self) -> Self:
        if more := self.inner.needs - self.needs - PASSED_ON:
            raise ValueError(
                f"objective {self.objective!r} needs {' and '.join(sorted(more))}, which it does not get here; choose dpo, ipo, hinge, ..."
            )
        return self

    @functools.cached_property
    def inner(self) -> Algorithm:
        """The objective, with its fields."""
        kind = ALGORITHMS.get(self.objective)
        return build(kind, self.objective_fields, self.objective)

    @property
    def initial_loss(self) -> float | None:
        """The objective's."""
        return self.inner.initial_loss

    @property
    def calls_reference(self) -> bool:
        return self.inner.calls_reference

    @property
    def embedded_by(self) -> tuple[str, ...]:
        return self.inner.embedded_by

    @property
    def trained_on(self) -> tuple[str, ...]:
        return self.inner.trained_on

    def prepare(self, data: PreferenceData, context: PrepareContext) -> PreferenceData:
        """As the objective does."""
        return self.inner.prepare(data, context)

    def begin(self, policy: Policy) -> None:
        self.inner.begin(policy)

    @property
    def needs_batch_stats(self) -> bool:
        return self.inner.needs_batch_stats

    def global_batch_stats(self, batch: PairBatch, policy: Policy) -> Tensor | None:
        return self.inner.global_batch_stats(batch, policy)

    def end_step(self, step: int, policy: Policy) -> None:
        self.inner.end_step(step, policy)


class PairwiseWrapper(Wrapper, PairwiseAlgorithm):
    """A wrapper around an objective that compares a noised pair with a reference."""

    @model_validator(mode="after")
    def _objective_is_pairwise(self) -> Self:
        self.pairwise  # noqa: B018 (raises)
        return self

    @property
    def pairwise(self) -> PairwiseAlgorithm:
        """The objective, checked to be pairwise; raises a ValueError if it is not."""
        if isinstance(self.inner, PairwiseAlgorithm) and type(self.inner).step is PairwiseAlgorithm.step:
            return self.inner
        raise ValueError(
            f"objective {self.objective!r} is not a plain pairwise objective with a reference; choose dpo, ipo, hinge, ..."
        )

    def noised(self, batch: PairBatch, policy: Policy) -> Noised:
        return self.pairwise.noised(batch, policy)

    def predict(self, noised: Noised, batch: PairBatch, policy: Policy) -> PairPredictions:
        return self.pairwise.predict(noised, batch, policy)

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return self.pairwise.loss(errors, preference)
