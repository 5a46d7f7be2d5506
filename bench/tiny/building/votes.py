"""The votes that each scorer is trained on: half on distorted scenes, half on pictures by the base model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.tiny import world
from bench.tiny.building.captions import describe, mistake
from bench.tiny.building.distortion import DistortedScenes
from bench.tiny.building.pairs import preferences, votes
from bench.tiny.building.scorers import Votes
from bench.tiny.checker import Checker

SCORERS = ("pickscore", "hpsv2", "imagereward", "aesthetic")
SCENE_VOTES = MODEL_VOTES = 8000
ALIKE = 0.7
"""The share of pairs that show the same requested object and colour, so that the rest decides."""
WRONG_CAPTIONS = 0.5
"""The share of pairs of scenes whose caption is wrong in one thing for the first of them."""


def scorer_votes(
    name: str, pool: DistortedScenes, made: Tensor, requests: Sequence[world.Request], checker: Checker
) -> Votes:
    """One scorer's own share of votes, in random order.

    Args:
        name: one of `SCORERS`.
        pool: distorted scenes.
        made: pictures by the base model, uint8 (N, 3, 64, 64).
        requests: what each of them was made for.
        checker: measures what the voters see.
    """
    rng = np.random.default_rng((44, SCORERS.index(name)))
    shown = [world.Request(scene.object, scene.colour) for scene in pool.scenes]
    scene_rows, made_rows = pair_rows(rng, shown, SCENE_VOTES), pair_rows(rng, requests, MODEL_VOTES)
    asked = [_scene_request(rng, pool.scenes[int(row)]) for row in scene_rows[:, 0]]
    asked += [requests[int(row)] for row in made_rows[:, 0]]
    sides = [_pictures(pool, torch.from_numpy(scene_rows[:, side]), side) for side in (0, 1)]
    pictures = torch.cat([torch.stack(sides, 1), made[torch.from_numpy(made_rows)]])
    order = torch.from_numpy(rng.permutation(len(asked)))
    asked, pictures = [asked[row] for row in order.tolist()], pictures[order]
    first_wins = votes(preferences(checker, asked, pictures), name)
    return Votes([request.caption for request in asked], pictures, torch.from_numpy(first_wins))


def pair_rows(rng: np.random.Generator, requests: Sequence[world.Request], count: int) -> NDArray[np.int64]:
    """Row numbers of pairs, (count, 2); of `ALIKE` of them both have the first one's object and colour."""
    alike: dict[tuple[str, str], list[int]] = {}
    for row, request in enumerate(requests):
        alike.setdefault((request.object, request.colour), []).append(row)
    rows = rng.integers(len(requests), size=(count, 2))
    for pair in rows:
        if rng.uniform() < ALIKE:
            request = requests[int(pair[0])]
            pair[1] = rng.choice(alike[request.object, request.colour])
    return rows


def _pictures(pool: DistortedScenes, rows: Tensor, seed: int) -> Tensor:
    parts = [pool.pixels(piece, seed * len(rows) + number) for number, piece in enumerate(rows.split(256))]
    return ((torch.cat(parts) + 1) * 127.5).round().byte()


def _scene_request(rng: np.random.Generator, scene: world.Scene) -> world.Request:
    request = describe(rng, scene)
    return mistake(rng, scene, request) if rng.uniform() < WRONG_CAPTIONS else request
