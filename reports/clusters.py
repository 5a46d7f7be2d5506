"""Intervals of means and shares whose values come in clusters, such as images by prompt and votes by caption."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from reports.seed_variance import Array
from reports.statistics import Estimate, Interval, Share


def clustered_interval(values: Array, clusters: Sequence[Hashable]) -> Interval:
    """Interval of a plain mean whose values come in clusters, such as images by prompt: Student's t, clusters independent.

    With the residual sums ``r_c`` of the G clusters among n values, the variance is ``G / (G - 1) * sum(r_c^2) / n^2`` on
    G - 1 degrees of freedom (Liang and Zeger, 1986); with one value per cluster, it is that of the ordinary mean.

    Args:
        values: (n,).
        clusters: the cluster of each value, n of them.

    Raises:
        ValueError: there are fewer than two clusters.
    """
    variance, count = _clustered_variance(values, clusters)
    mean = np.array([values.mean()])
    (interval,) = Estimate(mean, np.array([variance]), np.array([count - 1.0])).intervals()
    return interval.untested()


def clustered_share(values: Array, clusters: Sequence[Hashable]) -> Interval:
    """Interval of a share whose values in [0, 1] come in clusters: that of `Share` with the variance of `clustered_interval`.

    With one value per cluster, it is that of `share_intervals` for a single seed.  Nothing is tested.

    Args:
        values: (n,).
        clusters: the cluster of each value, n of them.

    Raises:
        ValueError: there are fewer than two clusters.
    """
    variance, count = _clustered_variance(values, clusters)
    share = float(values.mean())
    own, moved = share * (1 - share), (count * share + 0.5) / (count + 1)
    within = max(moved * (1 - moved), own)
    whole = np.array([variance + (within - own) / (count - 1)])
    effective = np.divide(within, whole, out=np.full(1, np.inf), where=whole > 0)
    (interval,) = Share(np.array([share]), whole, np.array([count - 1.0]), effective).intervals()
    return interval.untested()


def _clustered_variance(values: Array, clusters: Sequence[Hashable]) -> tuple[float, int]:
    """Variance of the mean of values in clusters, and the number of clusters."""
    names = {name: row for row, name in enumerate(dict.fromkeys(clusters))}
    count = len(names)
    if count < 2:
        raise ValueError(f"{count} clusters: an interval needs at least two")
    sums = np.bincount([names[name] for name in clusters], weights=values - values.mean(), minlength=count)
    return count / (count - 1) * float((sums**2).sum()) / len(values) ** 2, count
