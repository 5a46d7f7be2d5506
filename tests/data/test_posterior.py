"""What the cache holds of a picture, and what a training step draws from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from workshop import Workshop, batch_of

from bench.core.randomness import uniform
from bench.data.buckets import HorizontalFlip
from bench.data.cache import EncodedCaptions, EncodedData, to_pixels

ROWS = list(range(12))


def pixels(workshop: Workshop, rows: list[int], side: int) -> Tensor:
    """Both pictures of some rows, (B, 2, 3, side, side)."""
    return torch.stack(
        [torch.stack([to_pixels(workshop.data.image(row, which), (side, side)) for which in (0, 1)]) for row in rows]
    )


def test_latents_are_drawn_by_seed_step_and_pair(workshop: Workshop) -> None:
    posterior = workshop.encoded.posterior(ROWS)
    batch = batch_of(workshop.data, workshop.encoded, ROWS, seed=3, step=5)
    z = (batch.candidates - posterior.mean) / posterior.deviation
    assert z.mean().item() == pytest.approx(0, abs=0.1)
    assert z.std().item() == pytest.approx(1, abs=0.1)
    assert not torch.equal(z[:, 0], z[:, 1])  # the two pictures of a pair have draws of their own
    alone = batch_of(workshop.data, workshop.encoded, ROWS, [7], seed=3, step=5)
    assert torch.equal(alone.candidates[0], batch.candidates[7])
    for other in ({"seed": 4, "step": 5}, {"seed": 3, "step": 6}):
        assert not torch.equal(batch_of(workshop.data, workshop.encoded, ROWS, **other).candidates, batch.candidates)


def test_the_mean_is_a_setting(workshop: Workshop) -> None:
    batch = batch_of(workshop.data, workshop.encoded, ROWS, latents="mean")
    assert torch.equal(batch.candidates, workshop.encoded.posterior(ROWS).mean)


@pytest.mark.parametrize("flip", ["image", "pair"])
def test_half_of_the_pictures_are_mirrored_before_they_are_encoded(
    workshop: Workshop, tmp_path: Path, flip: HorizontalFlip
) -> None:
    model = workshop.model()
    encoded = EncodedData(workshop.data, model, tmp_path, horizontal_flip=flip)
    rows = list(range(40))
    batch = batch_of(workshop.data, encoded, rows, horizontal_flip=flip, latents="mean", seed=2, step=9)
    upright = pixels(workshop, rows, model.resolution)
    either = [
        model.encode_images(each.flatten(0, 1)).mean.unflatten(0, (-1, 2)) for each in (upright, upright.flip(-1))
    ]
    distance = torch.stack([(batch.candidates - each).flatten(2).abs().amax(2) for each in either])
    assert distance.amin(0).max() < 1e-5  # every picture is one of the two
    mirrored = distance[1] < distance[0]
    purposes = ["flip 0", "flip 1"] if flip == "image" else ["flip", "flip"]
    assert mirrored.tolist() == [[uniform(2, purpose, 9, row) < 0.5 for purpose in purposes] for row in rows]
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.2)
    assert (mirrored[:, 0] == mirrored[:, 1]).all().item() is (flip == "pair")


def test_latents_of_a_mirrored_picture_are_not_the_mirrored_latents(workshop: Workshop) -> None:
    """Why both are encoded."""
    model = workshop.model()
    images = pixels(workshop, [0], model.resolution)[0]
    mirrored = model.encode_images(images.flip(-1)).mean
    assert (mirrored - model.encode_images(images).mean.flip(-1)).abs().max() > 1e-3


def test_without_flips_nothing_is_encoded_twice(workshop: Workshop, tmp_path: Path) -> None:
    EncodedData(workshop.data, workshop.model(), tmp_path)
    assert [path.name.split("-")[1] for path in tmp_path.glob("posterior-*.npy")] == ["upright"]
    EncodedData(workshop.data, workshop.model(), tmp_path, horizontal_flip="pair")
    assert {path.name.split("-")[1] for path in tmp_path.glob("posterior-*.npy")} == {"upright", "mirrored"}


def test_captions_alone_are_the_same_and_no_picture_is_read(workshop: Workshop, tmp_path: Path) -> None:
    captions = workshop.data.captions[0:3]
    alone = EncodedCaptions(workshop.data.captions, workshop.model(), tmp_path)
    assert not list(tmp_path.glob("posterior-*"))
    for name, value in workshop.encoded.condition([*captions, ""]).items():
        assert torch.equal(alone.condition([*captions, ""])[name], value)
    for name, value in workshop.encoded.negative(2).items():
        assert torch.equal(alone.negative(2)[name], value)
    assert alone.size(0) == workshop.encoded.size(0)
    with pytest.raises(ValueError, match="must state Need.IMAGES or Need.PAIRS"):
        alone.posterior([0])
