"""The forward process at random times: what a denoising objective is evaluated on."""

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
    """Both images of each pair at a training time; no tensor carries a gradient.

    Attributes:
        winner: noisy latents of the winners, float32, (B, ...).
        loser: noisy latents of the losers, same shape.
        target_winner: what the network should predict for ``winner``, same shape.
        target_loser: what it should predict for ``loser``, same shape.
        timesteps: training times, shared by the images of a pair, int64, (B,).
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
    """Images at training times: noisy latents and targets, float32, (N, ...) each, and times, int64, (N,); no gradient."""

    latents: Tensor
    targets: Tensor
    timesteps: Tensor


def random_timesteps(process: ForwardProcess, draws: Draws, latents: Tensor, purpose: str = "timestep") -> Tensor:
    """A uniformly drawn training time for each row of ``latents``; int64, (B,), on their device."""
    return process.timesteps(draws.uniform(purpose)).to(latents.device)


def noised_images(process: ForwardProcess, draws: Draws, clean: Tensor, side: str = "") -> NoisedImages:
    """Put clean latents (B, ...), one for each pair, at random times with random noise.

    Args:
        side: ``winner`` or ``loser`` where the two images of a pair have a time and a noise of their own; images without
            it share both.
    """
    suffix = f" {side}" if side else ""
    t = random_timesteps(process, draws, clean, f"timestep{suffix}")
    noise = draws.normal_like(f"noise{suffix}", clean)
    return NoisedImages(process.add_noise(clean, noise, t), process.target(clean, noise, t), t)


def noised_alike(process: ForwardProcess, batch: PairBatch) -> Noised:
    """Put the two images of each pair at one random time with one noise."""
    noise = batch.draws.normal_like("noise", batch.winner)
    return noised_forward(process, batch, noise, noise, random_timesteps(process, batch.draws, batch.winner))


def noised_forward(process: ForwardProcess, batch: PairBatch, winner: Tensor, loser: Tensor, t: Tensor) -> Noised:
    """Put the two images of each pair at times ``t``, int64 (B,), with the given noise, (B, ...) each."""
    return Noised(
        process.add_noise(batch.winner, winner, t),
        process.add_noise(batch.loser, loser, t),
        process.target(batch.winner, winner, t),
        process.target(batch.loser, loser, t),
        t,
    )
