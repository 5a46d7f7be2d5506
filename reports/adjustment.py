"""Adjustment of p values for the number of comparisons, and what is marked after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import TypeVar

from reports.statistics import LEVEL, Interval

Key = TypeVar("Key", bound=Hashable)


def adjusted(family: Mapping[Key, Interval]) -> dict[Key, Interval]:
    """The intervals of one family of comparisons with Holm's adjusted p values (1979).

    Of m p values, the k-th smallest is multiplied by ``m - k + 1``, is at least the adjusted value before it, and at most 1.  The
    probability that any true hypothesis has an adjusted value below 5 % is at most 5 %, however the comparisons depend on each
    other.  Comparisons without a p value are not tested and stay as they are.
    """
    tested = {key: interval.p_value for key, interval in family.items() if interval.p_value is not None}
    values: dict[Key, float] = {}
    largest = 0.0
    for place, (key, value) in enumerate(sorted(tested.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(tested) - place) * value))
        values[key] = largest
    return {key: dataclasses.replace(interval, adjusted=values.get(key)) for key, interval in family.items()}


def stands_out(interval: Interval | None) -> bool:
    """Whether a comparison is marked: its adjusted p value is below 5 %."""
    return interval is not None and interval.adjusted is not None and interval.adjusted < 1 - LEVEL
