"""What is stored in half precision: the images are the same, and a GPU never holds the weights in full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ModelMixin
from numpy.typing import NDArray
from pipelines import SIDE, WRITERS
from torch import nn

from bench.evaluation.noise import evaluation_generators, evaluation_noise
from bench.models.family import ModelFamily
from bench.models.find import find_model
from bench.models.frozen import stored_for
from bench.models.guidance import Networks
from bench.models.sampling import generate_images
from bench.records.protocol import GenerationSettings
from bench.training.ledger import Ledger
from bench.training.policy import Policy
from bench.training.settings import TrainingSettings

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Mismatch dtype between input and weight"
    ),  # of Flux's RMS norm, under any autocast
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # diffusers' Euler with numpy 2
]
ADAPTERS = TrainingSettings(trainable="lora", lora_rank=3, precision="bf16")


def load(folder: Path) -> ModelFamily:
    return find_model(str(folder)).card.family.load(str(folder), device=torch.device("cpu"))


def trained_adapters(folder: Path, saved: Path) -> Path:
    """Adapters for a pipeline's denoiser, whose effect is not 0."""
    model, random = load(folder), torch.Generator().manual_seed(0)
    policy = Policy(model, ADAPTERS, Ledger())
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    model.save_trained(policy.network, saved)
    return saved


def drawn(model: ModelFamily, network: nn.Module) -> NDArray[np.uint8]:
    changes = {"steps": 3, "height": SIDE, "width": SIDE, "precision": "bf16"}
    settings: GenerationSettings = model.generation.model_copy(update=changes)
    places = [("a bee", 0), ("a cat", 0)]
    noise = torch.stack([evaluation_noise(settings, *place, model.latent_shape(SIDE, SIDE)) for place in places])
    draws = evaluation_generators(settings, places)
    return generate_images(model, Networks.single(network), ["a bee", "a cat"], noise, settings, draws)


def size(network: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in network.parameters())


@pytest.mark.parametrize("kind", WRITERS)
def test_images_of_half_the_weights_are_the_same(
    pipeline_folder: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    folder = pipeline_folder(kind)
    saved = trained_adapters(folder, tmp_path / "adapters")
    for place in (None, saved):
        model = load(folder)
        whole = model.network if place is None else model.load_trained(place)
        halved = load(folder).load_changed(place, stored_for("bf16"))
        assert size(halved) < 0.6 * size(whole)
        assert np.array_equal(drawn(model, halved), drawn(model, whole))


@pytest.mark.parametrize("what", ["training adapters", "sampling the base", "sampling with adapters"])
def test_weights_are_halved_before_they_go_to_the_device(
    pipeline_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder = pipeline_folder("sd15")
    saved = trained_adapters(folder, tmp_path / "adapters")
    moved: list[int] = []
    move = ModelMixin.to

    def noted(network: Any, *where: Any, **named: Any) -> Any:
        if any(isinstance(each, torch.device) for each in where):
            moved.append(size(network))
        return move(network, *where, **named)

    monkeypatch.setattr(ModelMixin, "to", noted)
    model = load(folder)
    if what == "training adapters":
        network = Policy(model, ADAPTERS, Ledger()).network
    else:
        network = model.load_changed(saved if "adapters" in what else None, stored_for("bf16"))
    assert moved[-1] == size(network) < 0.6 * moved[0]
