"""The autoencoder of the tiny pipeline: 64x64x3 images to 16x16x4 latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from bench.tiny.building.fitting import FitSettings, draws, fit
from bench.tiny.building.scenes import Pool

SETTINGS = FitSettings(steps=1800, learning_rate=2e-3, weight_decay=1e-4)
BATCH = 32
KL_WEIGHT = 1e-6
WIDTHS = (16, 48, 96)


def build_autoencoder() -> Any:
    """A new `AutoencoderKL` with 4 latent channels at a quarter of the resolution."""
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
        block_out_channels=WIDTHS,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )


def edges(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels, horizontal and vertical."""
    return pixels[..., :, 1:] - pixels[..., :, :-1], pixels[..., 1:, :] - pixels[..., :-1, :]


def train_autoencoder(pool: Pool, work: Path) -> Any:
    """Fit on pixels and edges, with a slight pull of the latents towards a standard normal; sets ``scaling_factor``."""
    vae = build_autoencoder()

    def loss(step: int) -> Tensor:
        pixels = pool.pixels(draws(step, len(pool), BATCH, seed=1))
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step))
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        across, down = (nn.functional.l1_loss(a, b) for a, b in zip(edges(decoded), edges(pixels), strict=True))
        total: Tensor = (
            4 * nn.functional.mse_loss(decoded, pixels)
            + nn.functional.l1_loss(decoded, pixels)
            + 0.5 * (across + down)
            + KL_WEIGHT * posterior.kl().mean()
        )
        return total

    fit("autoencoder", nn.ModuleDict({"vae": vae}), loss, SETTINGS, work)
    latents = encode(vae, pool, range(1024))
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    return vae


@torch.no_grad()
def encode(vae: Any, pool: Pool, indices: range) -> Tensor:
    """Latents (posterior means, not scaled) of a slice of the pool; float32, shape (N, 4, 16, 16)."""
    pieces = torch.arange(indices.start, indices.stop).split(128)
    return torch.cat([vae.encode(pool.pixels(piece)).latent_dist.mean for piece in pieces])


@torch.no_grad()
def reconstruction_error(vae: Any, pool: Pool) -> float:
    """Mean squared error on [-1, 1] over a pool that was not trained on."""
    total = 0.0
    for piece in torch.arange(len(pool)).split(128):
        pixels = pool.pixels(piece)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        total += (decoded - pixels).square().mean().item() * len(piece)
    return total / len(pool)
