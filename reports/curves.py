"""Training logs of several seeds as short curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTITIES = ("loss", "margin", "accuracy", "winner_gap", "loser_gap")
"""Logged quantities that a report draws."""

FROM_THE_SECOND_STEP = ("margin", "accuracy")
"""Quantities that say nothing at the first step, where policy and reference are the same."""

POINTS = 60
"""Maximum number of points per curve; longer logs are averaged over windows of equal length."""


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """A logged quantity over training: averages over windows of steps.

    Attributes:
        pairs: number of pairs seen by the end of each window.
        mean: mean over the seeds.
        low: value of the lowest seed.
        high: value of the highest seed.
    """

    pairs: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def training_curves(logs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Curve]:
    """Curves of the quantities that are in every line of every seed's log.

    Args:
        logs: lines of ``train.jsonl`` by seed; the shortest log determines the length.
    """
    steps = min((len(log) for log in logs), default=0)
    if steps == 0:
        return {}
    curves = {}
    for quantity in QUANTITIES:
        first = 1 if quantity in FROM_THE_SECOND_STEP else 0
        windows = np.array_split(np.arange(first, steps), min(POINTS, max(1, steps - first)))
        if steps <= first or not all(quantity in line for log in logs for line in log[:steps]):
            continue
        values = np.array([[line[quantity] for line in log[:steps]] for log in logs], dtype=np.float64)
        means = np.stack([values[:, window].mean(axis=1) for window in windows], axis=1)
        curves[quantity] = Curve(
            pairs=tuple(float(logs[0][window[-1]]["pairs"]) for window in windows),
            mean=tuple(means.mean(axis=0).tolist()),
            low=tuple(means.min(axis=0).tolist()),
            high=tuple(means.max(axis=0).tolist()),
        )
    return curves
