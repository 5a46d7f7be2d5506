"""An algorithm with its settings: a row of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Self

from bench.core.paths import check_name
from bench.training.algorithm import Algorithm
from bench.training.judge_fitting import JudgeFittingAlgorithm
from bench.training.settings import TrainingSettings


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """An algorithm with its settings: a row of a report.

    Attributes:
        name: the algorithm's registered name.
        algorithm: the algorithm.
        settings: how it trains.
        label: name of this configuration, part of the path.
        changed: changes to the recipe, by field: what the user typed, and what had to be adapted to the data.
        note: a sentence for the user about where the settings come from; None if the recipe is the model's own.
        placebo_of: of a placebo, the label of the method whose twin it is; None for all others.
    """

    name: str
    algorithm: Algorithm
    settings: TrainingSettings
    label: str
    changed: Mapping[str, str]
    note: str | None = None
    placebo_of: str | None = None

    @property
    def fits_judge(self) -> bool:
        """Whether each round fits its judge to the data's pairs."""
        return isinstance(self.algorithm, JudgeFittingAlgorithm)

    @property
    def makes_pairs(self) -> bool:
        """Whether rounds make its pairs, for the data's captions, and nothing reads the data's own pairs and labels."""
        return self.settings.rounds is not None and not self.fits_judge

    def as_placebo(self) -> Self:
        """The same method on shuffled preferences, with a label that says so."""
        shuffled = self.settings.model_copy(update={"labels": "shuffled"})
        return dataclasses.replace(self, settings=shuffled, label=f"{self.label}-placebo", placebo_of=self.label)


def check_label(name: str | None) -> None:
    """Raise a `UserError` if a name cannot be that of a folder; None is a name that is made here."""
    if name is not None:
        check_name(name)
