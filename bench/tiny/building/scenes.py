"""A pool of drawn scenes that every trained part shares."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.core.progress import Progress
from bench.tiny import world


@dataclasses.dataclass(frozen=True)
class Pool:
    """Scenes with their requests; ``pictures`` is uint8 of shape (N, 3, 64, 64)."""

    requests: list[world.Request]
    scenes: list[world.Scene]
    pictures: Tensor

    def __len__(self) -> int:
        return len(self.scenes)

    def pixels(self, index: Tensor) -> Tensor:
        """The images at ``index`` as float32 in [-1, 1], shape (B, 3, 64, 64)."""
        return self.pictures[index].float() / 127.5 - 1


def draw_pool(count: int, seed: int, work: Path) -> Pool:
    """Draw ``count`` scenes, or read them back from ``work``; scene i depends only on (seed, i)."""
    path = work / f"scenes-{seed}-{count}"
    requests, scenes = [], []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        requests.append(world.draw_request(rng))
        scenes.append(world.draw_scene(rng, requests[-1]))
    digest = json.dumps(dataclasses.asdict(scenes[-1]))
    if path.with_suffix(".npy").exists() and path.with_suffix(".json").read_text() == digest:
        return Pool(requests, scenes, torch.from_numpy(np.load(path.with_suffix(".npy"))))
    pictures = np.empty((count, 3, world.RESOLUTION, world.RESOLUTION), dtype=np.uint8)
    with Progress("drawing scenes", total=count) as progress:
        for index, scene in enumerate(scenes):
            pictures[index] = np.asarray(world.render(scene)).transpose(2, 0, 1)
            progress.advance()
    work.mkdir(parents=True, exist_ok=True)
    np.save(path.with_suffix(".tmp.npy"), pictures)
    path.with_suffix(".json").write_text(digest)
    path.with_suffix(".tmp.npy").replace(path.with_suffix(".npy"))
    return Pool(requests, scenes, torch.from_numpy(pictures))
