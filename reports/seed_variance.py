"""How much training seeds differ, learned from all rows of a table.

A row of few seeds says little about how its seeds differ; a row of one seed says nothing.  All rows of a table together say
more, so a row's seed mean square is shrunk towards that of the others (empirical Bayes, as in Smyth's moderated variance, 2004,
"Linear models and empirical Bayes methods", Stat. Appl. Genet. Mol. Biol. 3(1)).  The model, for row r with S_r seeds::

    d[r, seed, prompt] = mean[r] + prompt[r, p] + seed[r, s] + rest[r, s, p]
    M_S[r]  the mean square between seeds, d_r = S_r - 1 degrees of freedom, of expectation t[r] = P var(seed) + var(rest)
    t[r]    itself varies between rows: t[r] ~ scale * degrees / chi-square(degrees)

so that ``M_S[r] / scale`` follows F(d_r, degrees).  Over the rows with at least two seeds, ``scale`` maximizes the likelihood for
given degrees, and 1 / degrees is its mean under a flat prior on (0, 1): the degrees of highest likelihood are infinite in many
tables whose rows do differ, and jump to and from there as the data change.  Empirical Bayes rather than a full
hierarchical model because the estimate is two numbers that a reader can check, and the intervals that follow from it are
ordinary t intervals; their coverage was simulated (docs/statistics.md).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

PARTS = 32
"""Parts of the range of 1 / degrees over which it is averaged."""
SMALLEST = np.exp(-40.0)
"""A scale is at least this share of the largest square; squares of 0 have no logarithm."""
CLOSE = 1e-13
"""The scale's logarithm is found when it moves by less."""
MOST_STEPS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class SeedPrior:
    """What the rows of a table say about the seed mean square of one more row.

    Attributes:
        scale: (...), the typical seed mean square.
        degrees: (...), degrees of freedom that it is worth; larger if rows are alike.
        measured: (...), the sum of d_r over the rows; less where rows share seeds, 0 if no row has two.
        rest: (...), the mean square of the rest, pooled over the rows by d_r.
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

        With ``D`` degrees in the other rows, the prior counts for ``w = degrees D / (degrees + D)`` degrees, since its scale was
        estimated from those, and the row has ``(w scale + d M_S) / (w + d)`` on ``w + d`` degrees.

        Args:
            square: (...), its own mean square; any value where ``degrees`` is 0.
            degrees: (...), its number of seeds less one.
        """
        own = np.asarray(degrees, dtype=np.float64)
        others = np.maximum(self.measured - own, 0.0)
        whole = self.degrees + others
        effective_degrees = np.divide(self.degrees * others, whole, out=np.zeros(np.shape(whole)), where=whole > 0)
        together = effective_degrees + own
        weighted = effective_degrees * self.scale + own * np.where(own > 0, square, 0.0)
        return np.divide(weighted, together, out=np.zeros(np.shape(weighted)), where=together > 0), together


def fit_seed_prior(squares: ArrayLike, rests: ArrayLike, degrees: ArrayLike, shared: float = 0.0) -> SeedPrior:
    """What the rows of a table say about seed mean squares; see the module.

    Args:
        squares: (..., rows), seed mean squares; rows with one seed may have any value.
        rests: (..., rows), mean squares of the rest.
        degrees: (rows,), number of seeds less one; a row with 0 is ignored.
        shared: mean correlation between the squares of two rows, which have seeds in common where all are differences from one
            trained row: n correlated squares are worth ``n / (1 + (n - 1) shared)`` independent ones.
    """
    own = np.asarray(degrees, dtype=np.float64)
    used = own > 0
    x, rest, own = np.asarray(squares, dtype=np.float64)[..., used], np.asarray(rests)[..., used], own[used]
    measured = np.full(x.shape[:-1], own.sum() / (1 + max(0, len(own) - 1) * shared))
    if not used.any():
        nothing = np.zeros(x.shape[:-1])
        return SeedPrior(nothing, nothing, nothing, nothing)
    effective_degrees = 1 / _expected_spread(x, own)
    return SeedPrior(
        _scale(x, own, effective_degrees), effective_degrees, measured, (rest * own).sum(axis=-1) / own.sum()
    )


def _expected_spread(x: Array, own: Array) -> Array:
    """Mean of 1 / degrees over the middles of `PARTS` equal parts of (0, 1), weighted by their likelihood at the best scale."""
    spreads = (np.arange(PARTS) + 0.5) / PARTS
    values = _profile(x[..., None, :], own, 1 / spreads)
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray((weights * spreads).sum(axis=-1) / weights.sum(axis=-1))


def _profile(x: Array, own: Array, degrees: Array) -> Array:
    """Log-likelihood of degrees at the best scale, up to a constant of the data."""
    scale, prior = _scale(x, own, degrees)[..., None], degrees[..., None]
    relative = own * x / np.where(scale > 0, scale, 1) / prior
    terms = own / 2 * np.log(own / prior / np.where(scale > 0, scale, 1)) - special.betaln(own / 2, prior / 2)
    return np.asarray((terms - (own + prior) / 2 * np.log1p(relative)).sum(axis=-1))


def _scale(x: Array, own: Array, degrees: Array) -> Array:
    """The best scale for given degrees, between the smallest and the largest square and at least `SMALLEST` of the largest.

    Newton steps of its logarithm from the mean of the squares' logarithms, halves of the bracket where a step leaves it.
    """
    top, prior = x.max(axis=-1), degrees[..., None]
    weighted = own * x / prior
    whole = np.where(top > 0, top, 1.0)
    logarithms = np.log(np.maximum(x, SMALLEST * whole[..., None]))
    low, high = logarithms.min(axis=-1), np.log(whole)
    guess = (own * logarithms).sum(axis=-1) / own.sum()
    for _ in range(MOST_STEPS):
        relative = weighted / np.exp(guess)[..., None]
        share = (own + prior) * relative / (1 + relative)
        slope = (share / (1 + relative)).sum(axis=-1)
        excess = (share - own).sum(axis=-1)
        low, high = np.where(excess > 0, guess, low), np.where(excess > 0, high, guess)
        step = guess + excess / np.maximum(slope, 1e-300)
        # the bracket's ends count as inside: a guess that is exact is one of them, and its step is 0
        before, guess = guess, np.where((step >= low) & (step <= high), step, (low + high) / 2)
        if np.abs(guess - before).max(initial=0) < CLOSE:
            break
    return np.asarray(np.where(top > 0, np.exp(guess), 0.0))
