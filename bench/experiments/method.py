"""An algorithm with its settings: a row of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bench.training.algorithm import Algorithm
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
    """

    name: str
    algorithm: Algorithm
    settings: TrainingSettings
    label: str
    changed: Mapping[str, str]
    note: str | None = None
