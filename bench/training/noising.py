"""The forward process at random timesteps: the inputs of a denoising objective."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from bench.core.randomness import Draws
from bench.models.forward_process import ForwardProcess
from bench.training.pair_batch import PairBatch


@dataclasses.dataclass(frozen=True, slots=True)
class Noised:
    """Both images of each pair at a training timestep; no tensor carries a gradient.

    Attributes:
        winner: noisy latents of the winners, float32, (B, ...).
        loser: noisy latents of the losers, same shape.
        target_winner: what the network should predict for ``winner``, same shape.
        target_loser: what it should predict for ``loser``, same shape.
        timesteps: training timesteps, shared by the images of a pair, int64, (B,).
    """

    winner: Tensor
    loser: Tensor
    target_winner: Tensor
    target_loser: Tensor
    timesteps: Tensor

    def both(self) -> NoisedImages:
        """The winners, then the losers, for one forward pass of both; 2B rows."""
        return NoisedImages(
            torch.cat([self.winner, self.loser]),
            torch.cat([self.target_winner, self.target_loser]),
            torch.cat([self.timesteps, self.timesteps]),
        )


class NoisedImages(NamedTuple):
    """Images at training timesteps: noisy latents and targets, float32, (N, ...) each; timesteps, int64, (N,); no gradient."""

    latents: Tensor
    targets: Tensor
    timesteps: Tensor


def random_timesteps(process: ForwardProcess, draws: Draws, latents: Tensor, purpose: str = "timestep") -> Tensor:
    """One uniformly drawn training timestep per row of ``latents``; int64, (B,), on their device."""
    return process.timesteps(draws.uniform(purpose)).to(latents.device)


def noised_images(process: ForwardProcess, draws: Draws, clean: Tensor, side: str = "") -> NoisedImages:
    """Add random noise at random timesteps to clean latents, one per pair.

    Args:
        process: the model's forward process.
        draws: the random draws of the step.
        clean: clean latents, (B, ...).
        side: ``winner`` or ``loser`` to give the two images of a pair separate timesteps and noise; without it they share
            both.
    """
    suffix = f" {side}" if side else ""
    t = random_timesteps(process, draws, clean, f"timestep{suffix}")
    noise = draws.normal_like(f"noise{suffix}", clean)
    return NoisedImages(process.add_noise(clean, noise, t), process.target(clean, noise, t), t)


def noised_alike(process: ForwardProcess, batch: PairBatch) -> Noised:
    """Noise the two images of each pair with the same random timestep and the same noise."""
    noise = batch.draws.normal_like("noise", batch.winner)
    return noised_forward(process, batch, noise, noise, random_timesteps(process, batch.draws, batch.winner))


def noised_forward(process: ForwardProcess, batch: PairBatch, winner: Tensor, loser: Tensor, t: Tensor) -> Noised:
    """Noise the two images of each pair at timesteps ``t``, int64 (B,), with the given noise, (B, ...) each."""
    return Noised(
        process.add_noise(batch.winner, winner, t),
        process.add_noise(batch.loser, loser, t),
        process.target(batch.winner, winner, t),
        process.target(batch.loser, loser, t),
        t,
    )
