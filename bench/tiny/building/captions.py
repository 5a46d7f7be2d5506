"""True and wrong captions of scenes, for the scorers' pre-training."""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import Tensor

from bench.tiny import world
from bench.tiny.building.scenes import Pool


def captions_of(pool: Pool, index: Tensor, step: int, *, count: int) -> tuple[list[str], list[str]]:
    """True captions of scenes, then ``count`` rounds of captions that are wrong in one thing, one per scene and round."""
    rng = np.random.default_rng((24, step))
    scenes = [pool.scenes[i] for i in index.tolist()]
    requests = [describe(rng, scene) for scene in scenes]
    wrong = [mistake(rng, *pair).caption for _ in range(count) for pair in zip(scenes, requests, strict=True)]
    return [request.caption for request in requests], wrong


def describe(rng: np.random.Generator, scene: world.Scene) -> world.Request:
    """A request that the scene fulfils; two in three name its size or its place, if there is a name for it."""
    request = world.Request(scene.object, scene.colour)
    extra = rng.uniform()
    sizes = [name for name, (low, high) in world.SIZES.items() if low <= scene.size <= high]
    if extra < 1 / 3 and sizes:
        return dataclasses.replace(request, size=sizes[0])
    places = true_places(scene)
    if extra > 2 / 3 and places:
        return dataclasses.replace(request, place=places[int(rng.integers(len(places)))])
    return request


def mistake(rng: np.random.Generator, scene: world.Scene, request: world.Request) -> world.Request:
    """``request`` made wrong in one thing: half the time in the size or place that it names, else in object or colour."""
    if rng.uniform() < 0.5 and request.size:
        return dataclasses.replace(request, size=next(name for name in world.SIZES if name != request.size))
    if rng.uniform() < 0.5 and request.place:
        others = [name for name in world.PLACES if name not in true_places(scene)]
        return dataclasses.replace(request, place=others[int(rng.integers(len(others)))])
    return world.corrupt_request(rng, request)


def true_places(scene: world.Scene) -> list[str]:
    """The named places that the scene's object is at; two at most."""
    away = (scene.x - 0.5, scene.y - 0.5)
    return [name for name, (x, y) in world.PLACES.items() if x * away[0] + y * away[1] >= world.NAMED_PLACE_OFFSET]
