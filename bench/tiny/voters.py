"""The voters of the tiny world: named types with known, partly opposed utilities over measured properties.

A vote is a Bradley-Terry draw by one random voter, so preferences vary between people; still, the population's true preference
between any two images is known.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from bench.tiny.checker import Measured
from bench.tiny.world import NAMED_PLACE_OFFSET, PLACES, SIZES, Request


@dataclasses.dataclass(frozen=True, slots=True)
class Voter:
    """A type of voter: its share of the population, and its weight on each property; properties are in 0 to 1."""

    name: str
    share: float
    right_object: float = 0.0
    right_colour: float = 0.0
    named_extra: float = 0.0
    large: float = 0.0
    centred: float = 0.0
    vivid: float = 0.0
    textured: float = 0.0


VOTERS = (
    Voter("literalist", 0.30, right_object=3.0, right_colour=2.0, named_extra=2.0),
    Voter("close-up lover", 0.25, right_object=1.5, right_colour=0.5, large=4.0),
    Voter("miniaturist", 0.08, right_object=1.5, right_colour=0.5, large=-3.0),
    Voter("colourist", 0.17, right_object=1.0, right_colour=1.0, vivid=4.0, textured=1.0),
    Voter("minimalist", 0.12, right_object=1.5, vivid=-1.0, textured=-3.0),
    Voter("composer", 0.08, right_object=1.0, centred=4.0),
)

PROPERTIES = tuple(field.name for field in dataclasses.fields(Voter))[2:]


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


def utilities(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Utility of images for every voter type: properties (N, 7) to (N, voters)."""
    weights = np.asarray([[getattr(voter, name) for name in PROPERTIES] for voter in VOTERS])
    return np.asarray(values @ weights.T)


def expected_utility(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The population's mean utility: properties (N, 7) to (N,).  This is what the metric ``gold`` reports."""
    return np.asarray(utilities(values) @ np.asarray([voter.share for voter in VOTERS]))


def population_preference(values_0: NDArray[np.float64], values_1: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(a random voter prefers image 0 to image 1): two (N, 7) to (N,)."""
    chance = 1 / (1 + np.exp(utilities(values_1) - utilities(values_0)))
    return np.asarray(chance @ np.asarray([voter.share for voter in VOTERS]))


def extras_right(request: Request, measured: Measured, index: int) -> float:
    """The share of the extras named by a caption that a measured image has; 1 if it names none."""
    checks = named_extras(request, measured, index).values()
    return sum(checks) / len(checks) if checks else 1.0


def named_extras(request: Request, measured: Measured, index: int) -> dict[str, bool]:
    """Whether a measured image has the size, place and texture that its caption names; those that it leaves open are absent."""
    checks = {}
    if request.size:
        low, high = SIZES[request.size]
        checks["size"] = bool(low - 0.03 <= measured.size[index] <= high + 0.03)
    if request.place:
        dx, dy = PLACES[request.place]
        away = (measured.x[index] - 0.5) * dx + (measured.y[index] - 0.5) * dy
        checks["place"] = bool(away >= NAMED_PLACE_OFFSET)
    if request.texture:
        checks["texture"] = measured.textures[index] == request.texture
    return checks
