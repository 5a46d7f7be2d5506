"""Paired comparisons: means, shares, their intervals and p values.

The unit is the prompt: the same prompt and the same noise under two models.  Prompts and training seeds are crossed random
effects: every seed of a run is evaluated on every prompt, so neither repeated prompts nor repeated seeds are independent samples.
How much seeds differ is learned from all rows of a table (`reports.seed_variance`).

With S seeds, P prompts and the mean squares ``M_P`` (P - 1 degrees of freedom), ``M_S`` and ``M_R``, and with ``T`` (f degrees) the
seed square after moderation by the other rows, and not less than ``M_R``, of which its expectation is never less::

    A        = max(0, M_P - M_R)                                 with M_R of all rows where the row has one seed
    variance = (A + T) / (S P)
    degrees  = (A + T)^2 / (A^2 / (P - 1) + T^2 / f)             Satterthwaite (1946)

``E (M_P - M_R) = S var(prompt)`` and ``E M_S = P var(seed) + var(rest)``, so the variance has the expectation of that of the mean,
``var(prompt) / P + var(seed) / S + var(rest) / (S P)``, up to the floor at 0, where variance and degrees are continuous.  Where no
row has two seeds, ``A = M_P`` and ``T = 0``: the interval does not include how seeds differ.

All functions work on arrays whose leading dimensions are independent tables, with the rows of a table as the last dimension.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import special

from reports.anova import Crossed
from reports.seed_variance import Array, SeedPrior

LEVEL = 0.95
"""Confidence level of every interval in a report."""
TINY = 1e-300
"""What stands in for a probability or a count of 0."""
BISECTIONS = 52
ROUNDING = 1e-9
"""A standard error of this share of an estimate or less is that of rounding, and nothing varies."""
Miss = Literal["too wide", "too narrow"]
"""How an interval was seen to miss its level in simulations."""


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval, not adjusted for other comparisons.

    Attributes:
        mean: the estimate.
        low: lower end; None where nothing varies, so that there is no interval and no test.
        high: upper end; None where ``low`` is.
        level: confidence level, for example 0.95.
        p_value: of the hypothesis that there is no difference, two-sided; None where nothing is tested.
        adjusted: the p value after adjustment for the other comparisons of its family; None where nothing is tested.
        seeds: number of training seeds that it is over; 0 where nothing was trained here.
        miss: how such intervals were seen to miss their level in simulations; None for most.
    """

    mean: float
    low: float | None
    high: float | None
    level: float = LEVEL
    p_value: float | None = None
    adjusted: float | None = None
    seeds: int = 0
    miss: Miss | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends; None where nothing varies."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def half(self) -> float | None:
        """Half of its width; None where nothing varies."""
        return None if self.ends is None else (self.ends[1] - self.ends[0]) / 2

    def untested(self) -> Interval:
        """The interval alone, where a test would say more than is known."""
        return dataclasses.replace(self, p_value=None)

    def over(self, seeds: int) -> Interval:
        """The same, over a number of training seeds."""
        return dataclasses.replace(self, seeds=seeds)


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """Estimates of rows with what their intervals need; fields are (..., rows).

    Attributes:
        mean: the estimates.
        variance: of the estimates.
        degrees: degrees of freedom of ``variance``.
    """

    mean: Array
    variance: Array
    degrees: Array

    def ends(self, level: float = LEVEL) -> tuple[Array, Array]:
        """Student's t interval."""
        half = special.stdtrit(self.degrees, 0.5 + level / 2) * np.sqrt(self.variance)
        return self.mean - half, self.mean + half

    def p_values(self) -> Array:
        """Two-sided, of the hypothesis that the mean is 0."""
        return _two_sided(self.mean, self.variance, self.degrees)

    def intervals(self, level: float = LEVEL) -> tuple[Interval, ...]:
        """The rows of one table, tested against no difference; without interval and test where nothing varies."""
        columns = np.stack((self.mean, *self.ends(level), self.p_values()), axis=-1).tolist()
        varies = (np.sqrt(self.variance) > ROUNDING * np.abs(self.mean)).tolist()
        return tuple(
            Interval(mean, low, high, level, p_value) if some else Interval(mean, None, None, level)
            for (mean, low, high, p_value), some in zip(columns, varies, strict=True)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Share(Estimate):
    """Shares in [0, 1], with the mid-P interval of as many independent prompts as carry the same information.

    The exact binomial test, with half of the observed value's probability in the tail (Lancaster, 1961), on the effective sample
    size (Korn and Graubard, 1998); its normal score is referred to Student's t, so that few seeds widen the interval.

    Attributes:
        count: effective number of independent observations, ``share (1 - share) / variance``.
    """

    count: Array

    def scores(self, truth: Array | float) -> Array:
        """The normal score of the observed share if ``truth`` were the true one: negative where fewer wins are observed."""
        count = np.where(np.isfinite(self.count), self.count, 1.0)
        wins, losses = np.maximum(count * self.mean, TINY), np.maximum(count * (1 - self.mean), TINY)
        below = (special.betainc(losses + 1, wins, 1 - truth) + special.betainc(losses, wins + 1, 1 - truth)) / 2
        above = (special.betainc(wins + 1, losses, truth) + special.betainc(wins, losses + 1, truth)) / 2
        low, high = special.ndtri(np.maximum(below, TINY)), special.ndtri(np.maximum(above, TINY))
        return np.where(np.isfinite(self.count), np.where(below < above, low, -high), 0.0)

    def ends(self, level: float = LEVEL) -> tuple[Array, Array]:
        """The shares whose score is Student's quantile, by bisection."""
        quantile = special.stdtrit(self.degrees, 0.5 + level / 2)
        return self._where(quantile), self._where(-quantile)

    def _where(self, wanted: Array) -> Array:
        """The share at which the score, which falls with the share, has a value."""
        low, high = np.zeros(self.mean.shape), np.ones(self.mean.shape)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            beyond = self.scores(middle) > wanted
            low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
        found = np.where(high >= 1 - 2.0**-BISECTIONS, 1.0, np.where(low <= 2.0**-BISECTIONS, 0.0, (low + high) / 2))
        return np.where(np.isfinite(self.count), found, self.mean)

    def p_values(self) -> Array:
        """Two-sided, of the hypothesis that the share is one half: below 5 % where the 95 % interval excludes it."""
        return np.asarray(2 * special.stdtr(self.degrees, -np.abs(self.scores(0.5))))


def estimate_means(rows: Crossed, prior: SeedPrior | None = None) -> Estimate:
    """Means with their variances; see the module.

    Args:
        rows: the rows of a table.
        prior: what is known about how seeds differ; None means what these rows say.
    """
    prior = rows.prior() if prior is None else prior
    prompt_square, seed_square, effective_degrees = _parts(rows, prior)
    degrees = _satterthwaite(prompt_square, seed_square, rows.prompts - 1, effective_degrees)
    return Estimate(rows.mean, (prompt_square + seed_square) / (rows.seeds * rows.prompts), degrees)


def estimate_shares(rows: Crossed, shared: float = 0.0) -> Share:
    """Shares with their variances.

    Seeds of a row with a share near 0 or 1 cannot differ as much as those of a row near one half, so what is pooled is the seed
    square relative to ``a = share (1 - share)``.  A row that wins everywhere shows no variance at all; one half of a win and of a
    loss on one more prompt keep ``a`` above 0: with ``s = (P share + 1/2) / (P + 1)``, ``e = s (1 - s) - a`` is added to ``a`` and,
    as that many observations of P - 1 prompts, to the variance.  ``e`` is 0 at one half and vanishes with P.

    Args:
        rows: the rows of a table: wins, 1/2 for ties.
        shared: see `fit_seed_prior`.
    """
    share, prompts = np.clip(rows.mean, 0, 1), rows.prompts
    own = share * (1 - share)
    moved = (prompts * share + 0.5) / (prompts + 1)
    within = np.maximum(moved * (1 - moved), own)
    relative = rows.scaled(1 / within)
    prompt_square, seed_square, effective_degrees = _parts(relative, relative.prior(shared))
    cells = rows.seeds * prompts
    prompt_square = prompt_square + (1 - own / within) * cells / (prompts - 1)
    total = prompt_square + seed_square
    count = np.divide(cells, total, out=np.full(total.shape, np.inf), where=total > 0)
    degrees = _satterthwaite(prompt_square, seed_square, prompts - 1, effective_degrees)
    return Share(share, total * within / cells, degrees, count)


def mean_intervals(rows: Sequence[Array], *, shared: float = 0.0, level: float = LEVEL) -> tuple[Interval, ...]:
    """Intervals of the paired mean differences of the rows of one table, tested against 0.

    Args:
        rows: (seeds, prompts) or (seeds, prompts, images) each.
        shared: see `fit_seed_prior`.
        level: confidence level.

    Raises:
        ValueError: there are fewer than two prompts, or a shape is wrong.
    """
    if not rows:
        return ()
    crossed = Crossed.of(rows)
    return estimate_means(crossed, crossed.prior(shared)).intervals(level)


def share_intervals(rows: Sequence[Array], *, shared: float = 0.0) -> tuple[Interval, ...]:
    """Intervals of the win rates of the rows of one table, tested against one half.

    Args:
        rows: wins (`win_indicator`), (seeds, prompts) or (seeds, prompts, images) each.
        shared: see `fit_seed_prior`.

    Raises:
        ValueError: there are fewer than two prompts, or a shape is wrong.
    """
    return estimate_shares(Crossed.of(rows), shared).intervals() if rows else ()


def win_indicator(candidate: Array, base: Array, *, higher_is_better: bool = True) -> Array:
    """1 where the candidate's image is better than the base's, 0 where it is worse, 1/2 for a tie; float64, (seeds, prompts, images).

    Args:
        candidate: scores (seeds, prompts, images).
        base: scores (prompts, images), or those of the same seeds, for the same prompts and noise.
        higher_is_better: the metric's direction.
    """
    better = np.sign(candidate - base) * (1 if higher_is_better else -1)
    return np.asarray((1 + better) / 2, dtype=np.float64)


def _parts(rows: Crossed, prior: SeedPrior) -> tuple[Array, Array, Array]:
    """``A`` and ``T`` of the module, and the degrees of freedom f of ``T``."""
    own, shared = rows.seeds - 1, prior.each_row()
    square, effective_degrees = shared.moderated(rows.seed_square, own)
    known = shared.measured > 0
    rest = np.where(own > 0, rows.rest_square, shared.rest)
    prompts = np.where(known, np.maximum(0.0, rows.prompt_square - rest), rows.prompt_square)
    return prompts, np.where(known, np.maximum(square, rest), 0.0), effective_degrees


def _satterthwaite(prompts: Array, seeds: Array, prompt_degrees: float, seed_degrees: Array) -> Array:
    """Degrees of freedom of a sum of two mean squares; those of the prompts where both are 0."""
    whole = prompts + seeds
    share = np.divide(seeds, whole, out=np.zeros(whole.shape), where=whole > 0)
    effective_degrees = np.where(seed_degrees > 0, seed_degrees, 1.0)
    return np.asarray(1 / ((1 - share) ** 2 / prompt_degrees + share**2 / effective_degrees))


def _two_sided(difference: Array, variance: Array, degrees: Array) -> Array:
    """P value of a t statistic; 1 for no difference, and 0 for a difference without variance."""
    with np.errstate(divide="ignore"):
        statistic = np.divide(
            np.abs(difference), np.sqrt(variance), out=np.zeros(difference.shape), where=np.abs(difference) > 0
        )
    return np.asarray(2 * special.stdtr(degrees, -statistic))
