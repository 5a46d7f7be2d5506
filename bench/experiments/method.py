"""An algorithm with its settings: a row of a report."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from bench.core.errors import UserError
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


def check_label(name: str | None) -> None:
    """Raise a `UserError` if a name cannot be that of a folder; None is a name that is made here."""
    if name is not None and not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(
            f"the name {name!r} cannot be used: start with a letter, digit or '_', and use only these, '.', '+' and '-'"
        )
