"""What must not change a loss: where latents and embeddings come from, and how the reference is kept."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from workshop import Workshop

from algorithms.dpo import DPO
from bench.data.cache import to_pixels
from bench.training.policy import Policy

ROWS = [3, 8, 1, 13]


def moved(workshop: Workshop, trainable: str) -> Policy:
    """A policy that has left its reference."""
    policy = workshop.policy(trainable=trainable)
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.02)
    return policy


def test_cached_and_fresh_encodings_give_the_same_losses(workshop: Workshop) -> None:
    model, policy = workshop.model(), moved(workshop, "full")
    cached = workshop.batch(ROWS)

    def latents(places: Tensor) -> Tensor:
        images = [workshop.data.image(row, place) for row, place in zip(ROWS, places.tolist(), strict=True)]
        pixels = torch.stack([to_pixels(image, (model.resolution, model.resolution)) for image in images])
        noise = cached.draws.normal("posterior", cached.candidates.shape[1:])[torch.arange(len(ROWS)), places]
        return model.encode_images(pixels).draw(noise)

    dropped = (cached.draws.uniform("caption dropout") < 0.1).tolist()
    captions = ["" if drop else workshop.data.captions[row] for drop, row in zip(dropped, ROWS, strict=True)]
    told = model.encode_text(captions)
    fresh = dataclasses.replace(
        cached,
        winner=latents(cached.winner_index),
        loser=latents(cached.loser_index),
        condition=told,
        loser_condition=told,
    )
    one, other = (DPO(beta=20.0).step(batch, policy).losses.tolist() for batch in (cached, fresh))
    assert len(set(one)) == len(ROWS)
    assert other == pytest.approx(one, rel=1e-5)


def test_adapters_switched_off_are_a_frozen_copy_of_the_base(workshop: Workshop) -> None:
    policy, base = moved(workshop, "lora"), workshop.model()
    batch = workshop.batch(ROWS)
    t = torch.tensor([5, 200, 700, 999])
    with torch.no_grad():
        expected = base.predict(base.network, batch.winner, policy.process.network_times(t), batch.condition)
        assert not torch.equal(policy.predict(batch.winner, t, batch.condition), expected)
        assert torch.equal(policy.reference(batch.winner, t, batch.condition), expected)
        # and on again
        assert not torch.equal(policy.predict(batch.winner, t, batch.condition), expected)


def test_losses_with_adapters_are_those_against_a_frozen_copy(workshop: Workshop) -> None:
    policy, copy = moved(workshop, "lora"), moved(workshop, "lora")
    batch = workshop.batch(ROWS)
    copy._reference = workshop.model().network
    one, other = (DPO().step(batch, each).losses for each in (policy, copy))
    assert torch.equal(one, other)
    assert (one - torch.log(torch.tensor(2.0))).abs().min() > 1e-3
