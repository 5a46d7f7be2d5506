"""Measurements as a perfect checker would give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.tiny.checker import Measured
from bench.tiny.world import Scene


def measured_exactly(scenes: Sequence[Scene]) -> Measured:
    return Measured(
        objects=[scene.object for scene in scenes],
        colours=[scene.colour for scene in scenes],
        textures=[scene.texture for scene in scenes],
        size=np.array([scene.size for scene in scenes]),
        x=np.array([scene.x for scene in scenes]),
        y=np.array([scene.y for scene in scenes]),
        vividness=np.array([scene.vividness for scene in scenes]),
        textured=np.array([float(scene.texture != "plain") for scene in scenes]),
    )
