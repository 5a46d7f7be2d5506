"""What the networks are told besides the captions."""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pipelines import WRITERS
from workshop import batch_of, write_parquet

from bench import PairBatch, TrainingSettings
from bench.core.chunks import images_per_chunk
from bench.data.buckets import PictureSize
from bench.data.cache import EncodedData, to_pixels
from bench.data.reading import read_preferences
from bench.models.family import ModelFamily
from bench.models.find import find_model
from bench.models.framing import Framing, covering
from bench.training.ledger import Ledger
from bench.training.policy import Policy

CPU = torch.device("cpu")


def load(folder: Path) -> Any:
    return find_model(str(folder)).card.family.load(str(folder), device=CPU)


@pytest.mark.parametrize(
    ("original", "corner"),
    [((300, 600), (0, 50)), ((600, 300), (50, 0)), ((100, 100), (0, 0)), ((40, 50), (0, 12)), ((256, 101), (76, 0))],
)
def test_the_crop_begins_in_the_middle_of_the_resized_picture(
    original: tuple[int, int], corner: tuple[int, int]
) -> None:
    assert Framing.centre(original, (100, 100)) == Framing(original, corner, (100, 100))


@pytest.mark.parametrize(
    ("original", "resized", "corner"),
    # torchvision: the longer side is int(side * long / short), and the crop begins at round((long - side) / 2), half to even
    [
        ((683, 1024), (512, 767), (0, 128)),  # 767.625 is cut to 767, and 127.5 is rounded to 128
        ((1024, 683), (767, 512), (128, 0)),
        ((513, 771), (512, 769), (0, 128)),  # 769.497, 128.5 to 128
        ((1000, 667), (767, 512), (128, 0)),
        ((512, 515), (512, 515), (0, 2)),  # 1.5 to 2
        ((512, 513), (512, 513), (0, 0)),  # 0.5 to 0
    ],
)
def test_half_pixels_are_rounded_as_torchvision_does(
    original: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    assert covering(original, (512, 512)) == resized
    assert Framing.centre(original, (512, 512)).corner == corner


def test_pixels_are_cut_where_the_framing_says() -> None:
    columns = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    pixels = to_pixels(Image.fromarray(columns).convert("RGB"), (100, 100))
    assert Framing.centre((100, 200), (100, 100)).corner == (0, 50)
    assert ((pixels[0, 0] + 1) * 127.5).round().tolist() == list(range(50, 150))


def picture(height: int, width: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 90)).save(stream, format="png")
    return stream.getvalue()


def pairs_of(model: ModelFamily, folder: Path, size_conditioning: PictureSize) -> PairBatch:
    columns = {
        "caption": ["a bee", "a cat"],
        "jpg_0": [picture(48, 16), picture(16, 16)],
        "jpg_1": [picture(16, 64), picture(32, 24)],
        "label_0": [1.0, 0.0],
    }
    data = read_preferences(write_parquet(folder / "pairs.parquet", columns))
    encoded = EncodedData(data, model, folder / "cache")
    return batch_of(data, encoded, [0, 1], size_conditioning=size_conditioning)


def test_sdxl_is_told_the_true_size_and_crop_of_winner_and_loser(
    pipeline_folder: Callable[..., Path], tmp_path: Path
) -> None:
    batch = pairs_of(load(pipeline_folder("sdxl")), tmp_path, "true")
    assert batch.condition["time_ids"].tolist() == [[48, 16, 16, 0, 16, 16], [32, 24, 2, 0, 16, 16]]
    assert batch.loser_condition["time_ids"].tolist() == [[16, 64, 0, 24, 16, 16], [16, 16, 0, 0, 16, 16]]
    both = batch.both_conditions
    assert both["time_ids"].shape == (4, 6)
    assert both["time_ids"][2].tolist() == [16, 64, 0, 24, 16, 16]
    assert torch.equal(both["pooled"][:2], both["pooled"][2:])


def test_nominally_every_picture_is_whole_as_in_the_published_scripts(
    pipeline_folder: Callable[..., Path], tmp_path: Path
) -> None:
    batch = pairs_of(load(pipeline_folder("sdxl")), tmp_path, "nominal")
    assert batch.both_conditions["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 4


@pytest.mark.parametrize("kind", ["sd15", "sd3", "flux"])
def test_other_models_are_told_captions_alone(pipeline_folder: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    model = load(pipeline_folder(kind))
    batch = pairs_of(model, tmp_path, "true")
    assert list(batch.condition) == list(batch.loser_condition) == list(model.condition_names)


def test_an_empty_negative_prompt_of_sdxl_is_zero_and_an_empty_caption_is_not(
    pipeline_folder: Callable[..., Path],
) -> None:
    model = load(pipeline_folder("sdxl"))
    negative, captions = model.encode_negative(["", "a dog"]), model.encode_text(["", "a dog"])
    for name in model.condition_names:
        assert not negative[name][0].any()
        assert captions[name][0].abs().sum() > 1
        assert torch.equal(negative[name][1], captions[name][1])


def test_a_flow_network_is_asked_at_the_shifted_time(pipeline_folder: Callable[..., Path]) -> None:
    model = load(pipeline_folder("sd3"))
    policy = Policy(model, TrainingSettings(), Ledger())
    told = model.encode_text(["a bee"])
    latents = torch.randn(1, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        asked = policy.predict(latents, torch.tensor([499]), told)
        assert torch.equal(asked, model.predict(model.network, latents, torch.tensor([750.0]), told))
        assert not torch.equal(asked, model.predict(model.network, latents, torch.tensor([499.0]), told))


def test_flux_trains_at_the_shift_of_its_resolution(pipeline_folder: Callable[..., Path]) -> None:
    model = load(pipeline_folder("flux"))
    # 16x16 pixels are 8x8 latents, 16 tokens: mu = .5 + (16 - 256) * .65 / 3840
    half = model.process.network_times(torch.tensor([499])).item()
    assert half == pytest.approx(1000 / (1 + np.exp(-0.459375)), rel=1e-6)


def test_released_encoders_leave_memory_and_come_back(pipeline_folder: Callable[..., Path]) -> None:
    model = load(pipeline_folder("sdxl"))
    before = model.encode_text(["a bee"])["pooled"]
    model.encode_images(torch.zeros(1, 3, 16, 16))
    parts = [weakref.ref(encoder) for encoder in model.encoders.values()]
    network = model.network
    model.release_encoders()
    gc.collect()
    assert [part() for part in parts] == [None] * 3
    assert model.network is network
    assert torch.equal(model.encode_text(["a bee"])["pooled"], before)


def test_only_what_is_used_is_loaded(pipeline_folder: Callable[..., Path]) -> None:
    model = load(pipeline_folder("sd3"))
    assert model.digest
    assert model.latent_shape(16, 16) == (4, 8, 8)
    assert model.process.prediction_type == "flow"
    assert not {"network", "_vae", "_encoders"} & set(vars(model))


@pytest.mark.parametrize("kind", WRITERS)
def test_recomputed_activations_give_the_same_gradient(pipeline_folder: Callable[..., Path], kind: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = load(pipeline_folder(kind))
        policy = Policy(model, TrainingSettings(gradient_checkpointing=checkpointing), Ledger())
        sizes = model.picture_condition(Framing.whole((16, 16)))
        told = model.encode_text(["a bee"]) | {name: value[None] for name, value in sizes.items()}
        policy.predict(torch.ones(1, *model.latent_shape(16, 16)), torch.tensor([300]), told).square().sum().backward()
        gradients.append(
            {name: parameter.grad for name, parameter in policy.parameters() if parameter.grad is not None}
        )
    assert len(gradients[0]) > 20
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # of Flux's RMS norm, under any autocast
@pytest.mark.parametrize("kind", WRITERS)
def test_a_reference_in_half_precision_predicts_the_bits_of_the_policy(
    pipeline_folder: Callable[..., Path], kind: str
) -> None:
    model = load(pipeline_folder(kind))
    policy = Policy(model, TrainingSettings(precision="bf16"), Ledger())
    sizes = model.picture_condition(Framing.whole((16, 16)))
    told = model.encode_text(["a bee"]) | {name: value[None] for name, value in sizes.items()}
    latents = torch.randn(1, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = policy.predict(latents, torch.tensor([300]), told)
        assert torch.equal(policy.reference(latents, torch.tensor([300]), told), expected)
    reference, trained = (sum(p.nbytes for p in net.parameters()) for net in (model.network, policy.network))
    assert reference < 0.6 * trained


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # as above
@pytest.mark.parametrize("kind", WRITERS)
def test_frozen_weights_under_adapters_are_halved_without_a_trace(
    pipeline_folder: Callable[..., Path], kind: str
) -> None:
    model = load(pipeline_folder(kind))
    sizes = model.picture_condition(Framing.whole((16, 16)))
    told = model.encode_text(["a bee"]) | {name: value[None] for name, value in sizes.items()}
    latents = torch.randn(1, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    t = torch.tensor([300])
    expected = Policy(load(pipeline_folder(kind)), TrainingSettings(precision="bf16"), Ledger()).predict(
        latents, t, told
    )
    policy = Policy(model, TrainingSettings(precision="bf16", trainable="lora"), Ledger())
    assert torch.equal(policy.predict(latents, t, told), expected)  # the adapters' effect is 0 at first
    assert {parameter.dtype for _, parameter in policy.parameters()} == {torch.float32}
    frozen = [p for p in policy.network.parameters() if not p.requires_grad]
    assert sum(p.nbytes for p in frozen) < 0.6 * sum(4 * p.numel() for p in frozen)


@pytest.mark.parametrize(("side", "count"), [(64, 32), (512, 16), (768, 7), (1024, 4), (4096, 1)])
def test_large_pictures_are_made_fewer_at_a_time(side: int, count: int) -> None:
    assert images_per_chunk(side, side) == count
