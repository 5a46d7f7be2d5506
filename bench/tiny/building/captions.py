"""True and wrong captions of scenes, for the scorers' pre-training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from bench.tiny import world


def captions_of(scenes: Sequence[world.Scene], step: int, *, count: int) -> tuple[list[str], list[str]]:
    """True captions of scenes, and ``count`` rounds of captions that are wrong in one thing, one per scene and round."""
    rng = np.random.default_rng((24, step))
    requests = [describe(rng, scene) for scene in scenes]
    wrong = [mistake(rng, *pair).caption for _ in range(count) for pair in zip(scenes, requests, strict=True)]
    return [request.caption for request in requests], wrong


def describe(rng: np.random.Generator, scene: world.Scene) -> world.Request:
    """A request that the scene fulfils; names size, place and texture as often as `world.NAMED` says, if there is a name."""
    named = {name: rng.uniform() < share for name, share in world.NAMED.items()}
    sizes = [name for name, (low, high) in world.SIZES.items() if low <= scene.size <= high]
    places = true_places(scene)
    return world.Request(
        scene.object,
        scene.colour,
        size=sizes[0] if named["size"] and sizes else None,
        place=places[int(rng.integers(len(places)))] if named["place"] and places else None,
        texture=scene.texture if named["texture"] else None,
    )


def describe_fully(scene: world.Scene) -> world.Request:
    """A request that the scene fulfils, with every name that there is."""
    sizes = [name for name, (low, high) in world.SIZES.items() if low <= scene.size <= high]
    return world.Request(
        scene.object, scene.colour, next(iter(sizes), None), next(iter(true_places(scene)), None), scene.texture
    )


def mistake(rng: np.random.Generator, scene: world.Scene, request: world.Request) -> world.Request:
    """``request`` made wrong in one thing: half the time in one of the extras that it names, else in object or colour."""
    extras = [name for name in world.NAMED if getattr(request, name)]
    if not extras or rng.uniform() < 0.5:
        return world.corrupt_request(rng, request)
    extra = extras[int(rng.integers(len(extras)))]
    true = {"size": (request.size,), "place": true_places(scene), "texture": (scene.texture,)}[extra]
    every: tuple[str, ...] = {"size": tuple(world.SIZES), "place": tuple(world.PLACES), "texture": world.TEXTURES}[
        extra
    ]
    others = [name for name in every if name not in true]
    return dataclasses.replace(request, **{extra: others[int(rng.integers(len(others)))]})


def true_places(scene: world.Scene) -> list[str]:
    """The named places that the scene's object is at; two at most."""
    away = (scene.x - 0.5, scene.y - 0.5)
    return [name for name, (x, y) in world.PLACES.items() if x * away[0] + y * away[1] >= world.NAMED_PLACE_OFFSET]
