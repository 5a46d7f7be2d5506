"""Latents of drawn scenes with their captions, made one shard at a time when training first needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.core.files import write_array
from bench.tiny import world
from bench.tiny.building.captions import describe, mistake
from bench.tiny.building.layout_heads import layout

SHARD = 4096
WRONG_CAPTIONS = 0.15
"""The share of scenes whose caption is wrong in one thing, as captions on the web are."""
VARIANTS = 4
"""Right captions of one scene, which name different extras."""


def web_captions(scene: world.Scene, rng: np.random.Generator) -> list[str]:
    """`VARIANTS` captions of a scene as pre-training sees them.

    A wrong caption is the scene's only one: a wrong caption on the web does not correct itself.
    """
    if rng.uniform() < WRONG_CAPTIONS:
        return [mistake(rng, scene, describe(rng, scene)).caption] * VARIANTS
    return [describe(rng, scene).caption for _ in range(VARIANTS)]


class Shards:
    """Scenes in shards of `SHARD`, as latents and token ids; a shard depends on its number and the autoencoder alone.

    Args:
        vae: the autoencoder, with its ``scaling_factor`` set.
        tokenizer: the text encoder's tokenizer.
        folder: where finished shards are kept; it belongs to this autoencoder.
    """

    def __init__(self, vae: Any, tokenizer: Any, folder: Path) -> None:
        self._vae, self._tokenizer, self._folder = vae, tokenizer, folder
        self._latents: list[Tensor] = []
        self._tokens: list[Tensor] = []
        self._layouts: list[Tensor] = []

    def take(self, rows: Tensor, variants: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled latents, float32 (B, 4, 16, 16), token ids, int64 (B, length), and `layout`s, float32 (B, n), of scenes by number, int64 (B,)."""
        self._make_until(int(rows.max()) // SHARD)
        places = [(int(row) // SHARD, int(row) % SHARD) for row in rows]
        latents = torch.stack([self._latents[shard][place] for shard, place in places]).float()
        tokens = torch.stack([self._tokens[s][p, v] for (s, p), v in zip(places, variants.tolist(), strict=True)])
        layouts = torch.stack([self._layouts[shard][place] for shard, place in places])
        return latents * self._vae.config.scaling_factor, tokens.long(), layouts

    def _make_until(self, last: int) -> None:
        for number in range(len(self._latents), last + 1):
            path = self._folder / f"{number:03d}.npy"
            scenes = shard_scenes(number)
            if not path.exists():
                write_array(path, encode_scenes(self._vae, scenes))
            self._latents.append(torch.from_numpy(np.load(path)))
            self._layouts.append(torch.tensor([layout(scene) for scene in scenes]))
            captions = [
                caption
                for row, scene in enumerate(scenes)
                for caption in web_captions(scene, np.random.default_rng((17, number, row)))
            ]
            ids = self._tokenizer(captions, padding="max_length", truncation=True)["input_ids"]
            self._tokens.append(torch.tensor(ids, dtype=torch.int16).view(SHARD, VARIANTS, -1))


def shard_scenes(number: int) -> list[world.Scene]:
    """The scenes of a shard."""
    sources = [np.random.default_rng((16, number, row)) for row in range(SHARD)]
    return [world.draw_scene(rng, world.draw_request(rng)) for rng in sources]


@torch.no_grad()
def encode_scenes(vae: Any, scenes: list[world.Scene]) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Posterior means of scenes, not scaled; float16, (N, 4, 16, 16)."""
    parts = []
    for start in range(0, len(scenes), 64):
        pictures = np.stack([np.asarray(world.render(scene)) for scene in scenes[start : start + 64]])
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        parts.append(vae.encode(pixels).latent_dist.mean.half().numpy())
    return np.concatenate(parts)
