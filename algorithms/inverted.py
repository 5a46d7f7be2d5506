"""Inversion of both images of a pair, shared by InPO and SmPO."""

from __future__ import annotations

import torch
from torch import Tensor

from bench import InversionSettings, Noised, PairBatch, Policy, invert, random_timesteps


def invert_pair(batch: PairBatch, policy: Policy, settings: InversionSettings) -> Noised:
    """Invert winner and loser with the current policy, conditioned on the caption, to the same time.

    The targets are the predictions that map each inverted latent back to its clean one; the noise scaled by ``settings.eta`` is
    independent for the two images.
    """
    process = policy.process
    t = random_timesteps(process, batch.draws, batch.winner)
    clean = torch.cat([batch.winner, batch.loser])
    condition = batch.both_conditions

    def predict(latents: Tensor, timesteps: Tensor, rows: Tensor) -> Tensor:
        return policy.predict(latents, timesteps, {name: value[rows] for name, value in condition.items()})

    def dummy_forward() -> None:
        policy.dummy_forward(clean[:1], t[:1], {name: value[:1] for name, value in condition.items()})

    def noise(step: int) -> Tensor:
        winner = batch.draws.normal_like(f"inversion winner {step}", batch.winner)
        loser = batch.draws.normal_like(f"inversion loser {step}", batch.loser)
        return torch.cat([winner, loser])

    inverted = invert(
        predict, process, clean, torch.cat([t, t]), settings, noise=noise, any_rank=policy.any_rank,
        dummy_forward=dummy_forward,
    )  # fmt: skip
    target = process.target(clean, inverted.noise, inverted.timesteps)
    winner, loser = inverted.latents.chunk(2)
    target_winner, target_loser = target.chunk(2)
    return Noised(winner, loser, target_winner, target_loser, inverted.timesteps.chunk(2)[0])
