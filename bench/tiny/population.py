"""The voters of the second tiny world: one common taste, from which every person deviates.

Voter v weighs property k with ``w_vk = c_k (1 + z_vk)``, z standard normal, and votes by Bradley-Terry on the sum of weighted
properties.  So people agree on most pairs, preferences vary between them, and the population's true preference between any
two images is known.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from bench.tiny.voters import PROPERTIES

TASTE = {
    "right_object": 3.0, "right_colour": 2.0, "named_extra": 2.5, "large": 3.0, "centred": 1.5, "vivid": 3.0,
    "textured": -1.5,
}  # fmt: skip
"""The common taste: the mean weight of each property, which is also the standard deviation of its weight between people."""

_WEIGHTS = np.asarray([TASTE[name] for name in PROPERTIES])
# Probabilists' Gauss-Hermite quadrature; 48 nodes are exact to 1e-6 for the widest margins of the world.
_NODES, _MASS = np.polynomial.hermite_e.hermegauss(48)
_MASS = _MASS / _MASS.sum()


@dataclasses.dataclass(frozen=True, slots=True)
class VoteVariance:
    """What the variance of a vote (0.25 for pairs in random order) is made of, as variances that sum to it.

    Attributes:
        taste: the common part, the variance of the population's preference over pairs.
        person: the variance of a person's preference around the population's.
        coin: what stays random for a known person.
    """

    taste: float
    person: float
    coin: float


def expected_utility(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The population's mean utility: properties (N, 7), in the order of `PROPERTIES`, to (N,)."""
    return np.asarray(values @ _WEIGHTS)


def personal_utility(values: NDArray[np.float64], deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The utility of one person with deviations z (7,): properties (N, 7) to (N,)."""
    return np.asarray(values @ (_WEIGHTS * (1 + deviation)))


def population_preference(values_0: NDArray[np.float64], values_1: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(a random voter prefers image 0 to image 1): two (N, 7) to (N,)."""
    return np.asarray(_preferences(values_0, values_1) @ _MASS)


def vote_variance(values_0: NDArray[np.float64], values_1: NDArray[np.float64]) -> VoteVariance:
    """How the variance of one vote on random pairs, two (N, 7), divides into taste, person and coin."""
    chances = _preferences(values_0, values_1)
    mean = chances @ _MASS
    return VoteVariance(
        taste=float(np.mean((mean - 0.5) ** 2)),
        person=float(np.mean(chances**2 @ _MASS - mean**2)),
        coin=float(np.mean((chances * (1 - chances)) @ _MASS)),
    )


def _preferences(values_0: NDArray[np.float64], values_1: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(image 0 preferred) of the people at the nodes of the quadrature, (N, nodes).

    The margin of a random person is normal: its mean is the difference of expected utilities, and independent deviations add
    ``(c_k d_k)^2`` to its variance for a difference ``d_k`` in property k.
    """
    parts = (values_0 - values_1) * _WEIGHTS
    mean, spread = parts.sum(1), np.sqrt((parts**2).sum(1))
    return np.asarray(1 / (1 + np.exp(-(mean[:, None] + spread[:, None] * _NODES))))
