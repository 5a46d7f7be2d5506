"""What is held at once, however large the data or the pictures are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from workshop import SIDE, Workshop

from algorithms.ddpo import DDPO
from algorithms.tailorpo import TailorPO
from bench import Algorithm
from bench.core import chunks
from bench.data import cache
from bench.data.candidates import generate_candidates
from bench.models.families import diffusers_family


@pytest.fixture
def four_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if four of the small pictures were as many pixels as an autoencoder takes."""
    monkeypatch.setattr(chunks, "PIXELS_TOGETHER", 4 * SIDE * SIDE)
    monkeypatch.setattr(diffusers_family, "DECODED_TOGETHER", 4 * SIDE * SIDE)


def seen_by(module: nn.Module) -> list[int]:
    """The batch sizes that a module sees from now on."""
    sizes: list[int] = []
    module.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.usefixtures("four_at_once")
def test_pictures_are_encoded_in_batches_by_pixels(workshop: Workshop) -> None:
    model: Any = workshop.model()
    pixels = torch.rand(10, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([model.encode_images(picture[None]).mean for picture in pixels])
    sizes = seen_by(model.encoders["vae"].encoder)
    torch.testing.assert_close(model.encode_images(pixels).mean, alone)
    assert sizes == [4, 4, 2]


@pytest.mark.usefixtures("four_at_once")
def test_candidates_are_made_in_batches_by_pixels(workshop: Workshop, tmp_path: Path) -> None:
    model: Any = workshop.model()
    sizes = seen_by(model.encoders["vae"].decoder)
    changes = {"steps": 2, "height": SIDE, "width": SIDE, "precision": "fp32"}
    settings = model.generation.model_copy(update=changes)
    generate_candidates(model, ["a bee", "a dog"], 3, settings, tmp_path)
    assert sizes == [4, 2]


@pytest.mark.usefixtures("four_at_once")
@pytest.mark.parametrize(
    ("algorithm", "sizes"),
    [
        (DDPO(rewards=("clip",), group=2, sampling_steps=2, trained=1, within=1, clip=1e-3), [4, 2]),
        (TailorPO(rewards=("clip",), sampling_steps=2, trained=1), [4, 2, 4, 2]),  # two candidates of each sample
    ],
)
def test_samples_are_decoded_in_batches_by_pixels(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: Algorithm, sizes: list[int]
) -> None:
    model: Any = workshop.model()
    seen = seen_by(model.encoders["vae"].decoder)
    monkeypatch.setattr(workshop, "model", lambda: model)
    workshop.train(tmp_path, algorithm, steps=1, global_batch_size=6, micro_batch_size=6)
    assert seen == sizes


def test_only_so_many_shards_of_latents_and_texts_are_open(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = workshop.data.captions[0:40]
    whole, expected = workshop.encoded.posterior(range(len(workshop.data))), workshop.encoded.condition(captions)
    monkeypatch.setattr(cache, "SHARD", 2)
    monkeypatch.setattr(cache, "OPEN", 5)
    encoded = cache.EncodedData(workshop.data, workshop.model(), tmp_path)
    rows = range(len(workshop.data))
    torch.testing.assert_close(tuple(encoded.posterior(rows)), tuple(whole))
    told = encoded.condition(captions)
    torch.testing.assert_close(told["prompt_embeds"], expected["prompt_embeds"])
    assert len(list(tmp_path.iterdir())) > 30
    opened = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert len(opened) == 5
