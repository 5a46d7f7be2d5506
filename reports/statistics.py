"""Paired comparisons of a model with its base.

The unit is the prompt: the same prompt and the same noise under two models.  Prompts and training seeds are crossed random
effects: every seed of a run is evaluated on every prompt, so neither repeated prompts nor repeated seeds are independent samples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]

LEVEL = 0.95
"""Confidence level of every interval in a report."""


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        mean: the estimate.
        low: lower end.
        high: upper end.
        level: confidence level, for example 0.95.
    """

    mean: float
    low: float
    high: float
    level: float = LEVEL


@dataclasses.dataclass(frozen=True, slots=True)
class Variance:
    """Variance of a mean over crossed prompts and seeds.

    Attributes:
        prompts: the prompts' component, including the residual of prompt and seed.
        seeds: the seeds' component; 0 with a single seed, from which it cannot be estimated.
        degrees: Welch-Satterthwaite degrees of freedom of the sum.
    """

    prompts: float
    seeds: float
    degrees: float


def crossed_variance(differences: Array) -> Variance:
    """Variance of the grand mean of ``d = mean + prompt + seed + rest``, from the two-way analysis of variance.

    With S seeds, P prompts, and the mean squares ``M_P`` (P - 1 degrees), ``M_S`` (S - 1) and ``M_R`` ((S - 1)(P - 1))::

        prompts' part  M_P / (S P)
        seeds' part    max(0, M_S - M_R) / (S P)
        degrees        (M_P + M_S - M_R)^2 / (M_P^2 / (P - 1) + M_S^2 / (S - 1) + M_R^2 / ((S - 1)(P - 1))),
                       and at least the smaller of P - 1 and S - 1

    ``E M_P = S var(prompt) + var(rest)``, ``E M_S = P var(seed) + var(rest)`` and ``E M_R = var(rest)``, so the sum of both parts
    has the expectation ``var(prompt) / P + var(seed) / S + var(rest) / (S P)``: exactly the variance of the mean.  Where the
    seeds' part is 0 (one seed, or ``M_S <= M_R``) the degrees are P - 1.

    Args:
        differences: (seeds, prompts), or (seeds, prompts, images); images of one prompt are averaged first.

    Raises:
        ValueError: there are fewer than two prompts, or the shape is wrong.
    """
    table = _by_seed_and_prompt(differences)
    seeds, prompts = table.shape
    of_prompts, of_seeds, mean = table.mean(axis=0), table.mean(axis=1), table.mean()
    prompt_square = seeds * float(((of_prompts - mean) ** 2).sum()) / (prompts - 1)
    prompt_part = prompt_square / table.size
    if seeds == 1:
        return Variance(prompt_part, 0.0, prompts - 1)
    rest_degrees = (seeds - 1) * (prompts - 1)
    seed_square = prompts * float(((of_seeds - mean) ** 2).sum()) / (seeds - 1)
    rest = table - of_prompts - of_seeds[:, None] + mean
    rest_square = float((rest**2).sum()) / rest_degrees
    if seed_square <= rest_square:
        return Variance(prompt_part, 0.0, prompts - 1)
    total = prompt_square + seed_square - rest_square
    spread = prompt_square**2 / (prompts - 1) + seed_square**2 / (seeds - 1) + rest_square**2 / rest_degrees
    degrees = max(total**2 / spread, min(prompts, seeds) - 1)
    return Variance(prompt_part, (seed_square - rest_square) / table.size, degrees)


def mean_interval(differences: Array, *, level: float = LEVEL) -> Interval:
    """Interval of a paired mean difference: Student's t on `crossed_variance`.

    On simulated crossed data with three seeds or more the intervals cover the truth in 93 to 97 % of cases.  Two seeds say little
    about how seeds vary: if seeds differ more than prompts, coverage falls to 88 %.

    Args:
        differences: (seeds, prompts), or (seeds, prompts, images).
        level: confidence level.

    Raises:
        ValueError: there are fewer than two prompts, or the shape is wrong.
    """
    variance = crossed_variance(differences)
    mean = float(_by_seed_and_prompt(differences).mean())
    quantile = float(special.stdtrit(variance.degrees, 0.5 + level / 2))
    half = quantile * math.sqrt(variance.prompts + variance.seeds)
    return Interval(mean, mean - half, mean + half, level)


def clustered_interval(values: Array, clusters: Sequence[Hashable], *, level: float = LEVEL) -> Interval:
    """Interval of a plain mean whose values come in clusters, such as images by prompt: Student's t, clusters independent.

    With the residual sums ``r_c`` of the G clusters among n values, the variance is ``G / (G - 1) * sum(r_c^2) / n^2`` on
    G - 1 degrees of freedom (Liang and Zeger, 1986); with one value per cluster, it is that of the ordinary mean.

    Args:
        values: (n,).
        clusters: the cluster of each value, n of them.
        level: confidence level.

    Raises:
        ValueError: there are fewer than two clusters.
    """
    names = {name: row for row, name in enumerate(dict.fromkeys(clusters))}
    count = len(names)
    if count < 2:
        raise ValueError(f"{count} clusters: an interval needs at least two")
    mean = float(values.mean())
    sums = np.bincount([names[name] for name in clusters], weights=values - mean, minlength=count)
    error = math.sqrt(count / (count - 1) * float((sums**2).sum())) / len(values)
    half = float(special.stdtrit(count - 1, 0.5 + level / 2)) * error
    return Interval(mean, mean - half, mean + half, level)


def win_indicator(candidate: Array, base: Array, *, higher_is_better: bool = True) -> Array:
    """1 where the candidate's image is better than the base's, 0 where it is worse, 1/2 for a tie; float64, (seeds, prompts, images).

    Args:
        candidate: scores (seeds, prompts, images).
        base: scores (prompts, images) for the same prompts and noise.
        higher_is_better: the metric's direction.
    """
    better = np.sign(candidate - base) * (1 if higher_is_better else -1)
    return np.asarray((1 + better) / 2, dtype=np.float64)


def win_rate(candidate: Array, base: Array, *, higher_is_better: bool = True, level: float = LEVEL) -> Interval:
    """Share of images on which the candidate is better, counting ties as half, with the interval of `mean_interval`, clipped to [0, 1].

    Args:
        candidate: scores (seeds, prompts, images).
        base: scores (prompts, images) for the same prompts and noise.
        higher_is_better: the metric's direction.
        level: confidence level.

    Raises:
        ValueError: there are fewer than two prompts, or the shape is wrong.
    """
    rate = mean_interval(win_indicator(candidate, base, higher_is_better=higher_is_better), level=level)
    return Interval(rate.mean, max(0.0, rate.low), min(1.0, rate.high), level)


def _by_seed_and_prompt(differences: Array) -> Array:
    if differences.ndim not in (2, 3) or differences.shape[0] < 1 or differences.shape[1] < 2:
        raise ValueError(
            f"differences of shape {differences.shape}: (seeds, prompts) or (seeds, prompts, images) with at least two prompts"
        )
    return differences.mean(axis=2) if differences.ndim == 3 else differences
