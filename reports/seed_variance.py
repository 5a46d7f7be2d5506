"""How much training seeds differ, learned from all rows of a table.

A row of few seeds says little about how its seeds differ; a row of one seed says nothing.  All rows of a table together say
more, so a row's seed mean square is shrunk towards that of the others (empirical Bayes, as in Smyth's moderated variance, 2004,
"Linear models and empirical Bayes methods", Stat. Appl. Genet. Mol. Biol. 3(1)).  The model, for row r with S_r seeds::

    d[r, seed, prompt] = mean[r] + prompt[r, p] + seed[r, s] + rest[r, s, p]
    M_S[r]  the mean square between seeds, d_r = S_r - 1 degrees of freedom, of expectation t[r] = P var(seed) + var(rest)
    t[r]    itself varies between rows: t[r] ~ scale * degrees / chi-square(degrees)

so that ``M_S[r] / scale`` follows F(d_r, degrees).  ``scale`` and ``degrees`` maximize that likelihood over the rows with at
least two seeds.  Empirical Bayes rather than a full hierarchical model because the estimate is two numbers that a reader can
check, and the intervals that follow from it are ordinary t intervals; their coverage was simulated (docs/statistics.md).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

MOST_DEGREES = 1e4
"""Degrees of the prior from which on the rows count as equally variable."""
GOLDEN_STEPS = 36
NEWTON_STEPS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class SeedPrior:
    """What the rows of a table say about the seed mean square of one more row.

    Attributes:
        scale: (...), the typical seed mean square.
        degrees: (...), degrees of freedom that it is worth; larger if rows are alike.
        measured: (...), the sum of d_r over the rows, more than which nothing derived from them is worth; 0 if no row has two seeds.
        rest: (...), the mean square of the rest, pooled over the rows by their degrees.
    """

    scale: Array
    degrees: Array
    measured: Array
    rest: Array

    def each_row(self) -> SeedPrior:
        """The same for every row of its table: with one more dimension, for the rows."""
        return SeedPrior(*(getattr(self, field.name)[..., None] for field in dataclasses.fields(self)))

    def moderated(self, square: ArrayLike, degrees: ArrayLike) -> tuple[Array, Array]:
        """A row's seed mean square shrunk towards the table's, with its degrees of freedom.

        Args:
            square: (...), its own mean square; any value where ``degrees`` is 0.
            degrees: (...), its number of seeds less one.
        """
        own = np.asarray(degrees, dtype=np.float64)
        together = self.degrees + own
        weighted = self.degrees * self.scale + own * np.where(own > 0, square, 0.0)
        shrunk = np.divide(weighted, together, out=np.zeros(np.shape(weighted)), where=together > 0)
        return shrunk, np.minimum(together, self.measured)


def fit_seed_prior(squares: ArrayLike, rests: ArrayLike, degrees: ArrayLike, prompts: int) -> SeedPrior:
    """The maximum-likelihood prior of seed mean squares over the rows of a table.

    Args:
        squares: (..., rows), seed mean squares; rows with one seed may have any value.
        rests: (..., rows), mean squares of the rest.
        degrees: (rows,), number of seeds less one; a row with 0 is ignored.
        prompts: number of prompts P, by which the degrees of ``rests`` are d_r (P - 1).
    """
    own = np.asarray(degrees, dtype=np.float64)
    used = own > 0
    x, rest, own = np.asarray(squares, dtype=np.float64)[..., used], np.asarray(rests)[..., used], own[used]
    measured = np.full(x.shape[:-1], own.sum())
    if not used.any():
        nothing = np.zeros(x.shape[:-1])
        return SeedPrior(nothing, nothing, nothing, nothing)
    worth = _maximize(x, own)
    scale = _scale(x, own, worth)
    return SeedPrior(scale, np.exp(worth), measured, (rest * own).sum(axis=-1) / own.sum())


def _maximize(x: Array, own: Array) -> Array:
    """Logarithm of the degrees with the highest profile likelihood: the best of a grid, then golden-section search around it."""
    grid = np.linspace(0.0, np.log(MOST_DEGREES), 14)
    values = np.stack([_profile(x, own, np.full(x.shape[:-1], worth)) for worth in grid])
    best = values.argmax(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, len(grid) - 1)]
    ratio = (np.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = _profile(x, own, left), _profile(x, own, right)
    for _ in range(GOLDEN_STEPS):
        upper = at_right > at_left
        low, high = np.where(upper, left, low), np.where(upper, high, right)
        probe = np.where(upper, low + ratio * (high - low), high - ratio * (high - low))
        left, right = np.where(upper, right, probe), np.where(upper, probe, left)
        value = _profile(x, own, probe)
        at_left, at_right = np.where(upper, at_right, value), np.where(upper, value, at_left)
    return np.asarray((low + high) / 2)


def _profile(x: Array, own: Array, worth: Array) -> Array:
    """Log-likelihood of ``exp(worth)`` degrees at the best scale, up to a constant of the data."""
    scale, prior = _scale(x, own, worth)[..., None], np.exp(worth)[..., None]
    relative = own * np.divide(x, scale, out=np.zeros_like(x), where=scale > 0) / prior
    terms = own / 2 * np.log(own / prior / np.where(scale > 0, scale, 1)) - special.betaln(own / 2, prior / 2)
    return np.asarray((terms - (own + prior) / 2 * np.log1p(relative)).sum(axis=-1))


def _scale(x: Array, own: Array, worth: Array) -> Array:
    """The best scale for given degrees, which lies between the smallest and the largest square: Newton steps of its logarithm."""
    top, prior = x.max(axis=-1), np.exp(worth)[..., None]
    weighted = own * x / prior
    high = np.log(np.where(top > 0, top, 1.0))
    low, guess = high - 40.0, np.log(np.where(top > 0, (own * x).sum(axis=-1) / own.sum(), 1.0))
    for _ in range(NEWTON_STEPS):
        relative = weighted / np.exp(guess)[..., None]
        share = (own + prior) * relative / (1 + relative)
        slope = (share / (1 + relative)).sum(axis=-1)
        excess = (share - own).sum(axis=-1)
        low, high = np.where(excess > 0, guess, low), np.where(excess > 0, high, guess)
        step = guess + excess / np.maximum(slope, 1e-300)
        guess = np.where((step > low) & (step < high), step, (low + high) / 2)
    return np.where(top > 0, np.exp(guess), 0.0)
