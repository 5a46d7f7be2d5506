"""Shuffled preferences, for placebo runs: what says which image of a row is better belongs to a random image of that row."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from bench.core.randomness import permutation


@dataclasses.dataclass(frozen=True, slots=True)
class Shuffle:
    """Permutations of the images of each row, each drawn at an address: a function of seed and row alone.

    The labels of a pair and every score of its images take the same permutation.  Captions and images stay where they are, so
    latents, embeddings and scores are cached once, for runs with shuffled preferences and for all others.

    Attributes:
        seed: the training seed.
    """

    seed: int

    def scores(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of the images of all rows, permuted within each row; float64, (N, K)."""
        return np.take_along_axis(values, _orders(self.seed, *values.shape), axis=1)

    def preference(self, preference_0: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(image 0 is preferred) of all pairs, whose images are swapped with probability 1/2; float64, (N,)."""
        swapped = _orders(self.seed, len(preference_0), 2)[:, 0] == 1
        return np.where(swapped, 1 - preference_0, preference_0)


@functools.lru_cache(maxsize=4)
def _orders(seed: int, count: int, width: int) -> NDArray[np.int64]:
    """For every row the image from which each image takes its score, int64, (N, K), read-only."""
    orders = np.empty((count, width), dtype=np.int64)
    for row in range(count):
        orders[row] = permutation(width, seed, "shuffled labels", row).numpy()
    orders.flags.writeable = False
    return orders
