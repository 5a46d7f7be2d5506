"""Requests and scenes of the second set of preferences, whose pictures do not come from the base model.

Like Pick-a-Pic for Stable Diffusion 1.5, most of whose pictures are by other, often better models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.tiny import world
from bench.tiny.building.captions import mistake

PAIRS = 2000
RIGHT = 0.6
"""The share of pictures that show all that the caption names; the others are wrong in one thing."""


def draw_sides(requests: Sequence[world.Request], seed: int) -> list[world.Scene]:
    """Two scenes for each request, one after the other; what the request leaves open varies freely."""
    return [
        _side(np.random.default_rng((seed, row, side)), request)
        for row, request in enumerate(requests)
        for side in (0, 1)
    ]


def _side(rng: np.random.Generator, request: world.Request) -> world.Scene:
    scene = world.draw_scene(rng, request)
    return scene if rng.uniform() < RIGHT else world.draw_scene(rng, mistake(rng, scene, request))
