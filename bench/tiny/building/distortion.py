"""Scenes as a diffusion model draws them: through the autoencoder, with errors in the latents, blurred and noisy.

A checker and scorers that have seen crisp scenes alone take a soft apple for a book.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench.core.files import write_array
from bench.core.progress import Progress
from bench.tiny import world

PIECE = 256
LATENT_ERROR = 0.4
"""Decoded scenes have a normal error in their scaled latents; its deviation is drawn from 0 to this."""
WIDEST_BLUR = 1.2
"""Widest standard deviation of the Gaussian blur, in pixels."""
PIXEL_NOISE = 0.12
"""Largest standard deviation of the pixel noise, on [-1, 1]."""
KERNEL = 7


@dataclasses.dataclass(frozen=True)
class DistortedScenes:
    """Scenes with two pictures each, as drawn and through the autoencoder; uint8, (N, 3, 64, 64) both."""

    scenes: list[world.Scene]
    drawn: Tensor
    decoded: Tensor

    def __len__(self) -> int:
        return len(self.scenes)

    def pixels(self, rows: Tensor, step: int) -> Tensor:
        """Distorted pictures of scenes by number, int64 (B,), every second one decoded; in [-1, 1], float32 (B, 3, 64, 64)."""
        pictures = self.drawn[rows].clone()
        pictures[::2] = self.decoded[rows[::2]]
        return distort(pictures.float() / 127.5 - 1, step)


def draw_distorted(vae: Any, count: int, seed: int, folder: Path) -> DistortedScenes:
    """Random scenes and their pictures; the decoded ones are kept in ``folder``."""
    scenes = random_scenes(count, seed)
    return DistortedScenes(scenes, torch.from_numpy(rendered(scenes)), decoded_scenes(vae, scenes, folder))


def random_scenes(count: int, seed: int) -> list[world.Scene]:
    """Random scenes; scene i depends on (seed, i) alone."""
    sources = [np.random.default_rng((31, seed, row)) for row in range(count)]
    return [world.draw_scene(rng, world.draw_request(rng)) for rng in sources]


def decoded_scenes(vae: Any, scenes: Sequence[world.Scene], folder: Path) -> Tensor:
    """Scenes through the autoencoder with an error in their latents; uint8, (N, 3, 64, 64).

    Made in pieces of `PIECE` that are kept in ``folder``, so that an interrupted call continues.
    """
    parts = []
    with Progress("decoding scenes", total=len(scenes)) as progress:
        for start in range(0, len(scenes), PIECE):
            path = folder / f"decoded-{start:06d}.npy"
            if not path.exists():
                write_array(path, _decoded(vae, scenes[start : start + PIECE], start))
            parts.append(np.load(path))
            progress.advance(len(parts[-1]))
    return torch.from_numpy(np.concatenate(parts))


@torch.no_grad()
def _decoded(vae: Any, scenes: Sequence[world.Scene], seed: int) -> NDArray[np.uint8]:
    source = torch.Generator().manual_seed(seed)
    parts = []
    for pixels in torch.from_numpy(rendered(scenes)).split(32):
        latents = vae.encode(pixels.float() / 127.5 - 1).latent_dist.mean
        spread = torch.rand(len(latents), 1, 1, 1, generator=source) * LATENT_ERROR / vae.config.scaling_factor
        error = spread * torch.randn(latents.shape, generator=source)
        parts.append(((vae.decode(latents + error).sample + 1) * 127.5).round().clamp(0, 255).byte().numpy())
    return np.concatenate(parts)


def rendered(scenes: Sequence[world.Scene]) -> NDArray[np.uint8]:
    """Pictures of scenes; uint8, (N, 3, 64, 64)."""
    return np.stack([np.asarray(world.render(scene)) for scene in scenes]).transpose(0, 3, 1, 2).copy()


def distort(pixels: Tensor, step: int) -> Tensor:
    """Blur and noise of random strength; pixels in [-1, 1], float32 (B, 3, h, w), depend on the step alone.

    Nothing is flipped or moved, since captions name places.
    """
    source = torch.Generator().manual_seed(step)
    count = len(pixels)
    blur = torch.rand(count, generator=source) * WIDEST_BLUR
    noise = torch.rand(count, 1, 1, 1, generator=source) ** 2 * PIXEL_NOISE
    return (_blurred(pixels, blur) + noise * torch.randn(pixels.shape, generator=source)).clamp(-1, 1)


def _blurred(pixels: Tensor, deviation: Tensor) -> Tensor:
    """Each image blurred with its own Gaussian, deviations (B,) in pixels."""
    offsets = torch.arange(KERNEL) - KERNEL // 2
    weights = torch.exp(-(offsets**2) / (2 * deviation[:, None].clamp(min=0.05) ** 2))
    weights = weights / weights.sum(1, keepdim=True)
    batch, channels, height, width = pixels.shape
    flat = functional.pad(pixels, (KERNEL // 2,) * 4, mode="replicate").reshape(
        1, batch * channels, height + KERNEL - 1, width + KERNEL - 1
    )
    across = weights.repeat_interleave(channels, 0).view(batch * channels, 1, 1, KERNEL)
    flat = functional.conv2d(flat, across, groups=batch * channels)
    flat = functional.conv2d(flat, across.transpose(2, 3), groups=batch * channels)
    return flat.view(batch, channels, height, width)
