"""The voters of the tiny world: one common taste, from which every person deviates.

Voter v weighs property k with ``w_vk = c_k (1 + z_vk)``, z standard normal, and votes by Bradley-Terry on the sum of weighted
properties.  So people agree on most pairs, preferences vary between them, and the population's true preference between any
two images is known.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from bench.tiny.checker import Measured
from bench.tiny.world import NAMED_PLACE_OFFSET, PLACES, SIZES, Request

TASTE = {
    "right_object": 3.6, "right_colour": 2.4, "named_extra": 3.0, "large": 3.6, "centred": 1.8, "vivid": 3.6,
    "textured": -1.8,
}  # fmt: skip
"""The common taste: the mean weight of each property, which is also the standard deviation of its weight between people.

Their size decides how sure people are: with these, mean max(p, 1 - p) of a pair of the base model's pictures is 0.685;
with weights five sixths as large it was 0.670.
"""
PROPERTIES = tuple(TASTE)
SIZE_SLACK = 0.03
"""How far outside a named range of sizes an object may be measured, as a share of the side; about the checker's error."""

RULES = {"taste": TASTE, "size slack": SIZE_SLACK}
"""What a build states of the voters."""
_WEIGHTS = np.asarray(list(TASTE.values()))
# A deviation's nodes and their probabilities.  On an even grid the sum converges as fast as the integrand is smooth: 121 nodes are
# exact to 1e-8 for every margin of the world, where 48 nodes of Gauss and Hermite were 2e-3 off.
_NODES = np.linspace(-8, 8, 121)
_MASS = np.exp(-(_NODES**2) / 2)
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


def properties(request: Request, measured: Measured, index: int) -> NDArray[np.float64]:
    """The properties of one measured image given its request, in the order of `PROPERTIES`; each in 0 to 1, (7,)."""
    values = {
        "right_object": float(measured.objects[index] == request.object),
        "right_colour": float(measured.colours[index] == request.colour),
        "named_extra": extras_right(request, measured, index),
        "large": np.clip((measured.size[index] - 0.35) / 0.5, 0, 1),
        "centred": np.clip(1 - 2.5 * np.hypot(measured.x[index] - 0.5, measured.y[index] - 0.5), 0, 1),
        "vivid": np.clip(measured.vividness[index], 0, 1),
        "textured": np.clip(measured.textured[index], 0, 1),
    }
    return np.asarray([values[name] for name in PROPERTIES], dtype=np.float64)


def extras_right(request: Request, measured: Measured, index: int) -> float:
    """The share of the extras named by a caption that a measured image has; 1 if it names none."""
    checks = named_extras(request, measured, index).values()
    return sum(checks) / len(checks) if checks else 1.0


def named_extras(request: Request, measured: Measured, index: int) -> dict[str, bool]:
    """Whether a measured image has the size, place and texture that its caption names; those that it leaves open are absent."""
    checks = {}
    if request.size:
        checks["size"] = _has_size(request.size, measured.size[index])
    if request.place:
        dx, dy = PLACES[request.place]
        away = (measured.x[index] - 0.5) * dx + (measured.y[index] - 0.5) * dy
        checks["place"] = bool(away >= NAMED_PLACE_OFFSET)
    if request.texture:
        checks["texture"] = measured.textures[index] == request.texture
    return checks


def _has_size(name: str, size: float) -> bool:
    """Whether a size is the named one; what is smaller than small is small, and what is larger than large is large."""
    low, high = SIZES[name]
    smallest, largest = min(low for low, _ in SIZES.values()), max(high for _, high in SIZES.values())
    return bool((low == smallest or size >= low - SIZE_SLACK) and (high == largest or size <= high + SIZE_SLACK))


def _preferences(values_0: NDArray[np.float64], values_1: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(image 0 preferred) of the people at the nodes of the quadrature, (N, nodes).

    The margin of a random person is normal: its mean is the difference of expected utilities, and independent deviations add
    ``(c_k d_k)^2`` to its variance for a difference ``d_k`` in property k.
    """
    parts = (values_0 - values_1) * _WEIGHTS
    mean, spread = parts.sum(1), np.sqrt((parts**2).sum(1))
    return np.asarray(1 / (1 + np.exp(-(mean[:, None] + spread[:, None] * _NODES))))
