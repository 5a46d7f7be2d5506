"""Pictures of many shapes: what they are cut to, and that training on them does not depend on how a batch is cut."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from pipelines import WRITERS
from workshop import CPU, batch_of, preference_columns, write_parquet

from algorithms.inpo import InPO
from bench.data.buckets import AspectRatios, aspect_buckets
from bench.data.cache import EncodedData
from bench.data.preferences import PreferenceData
from bench.data.reading import read_preferences
from bench.models.family import ModelFamily
from bench.models.find import find_architecture, find_model
from bench.training.batches import StepBatches
from bench.training.ledger import Ledger
from bench.training.policy import Policy
from bench.training.settings import TrainingSettings
from bench.training.step import Trainer, accumulate

SHAPES = ((16, 16), (8, 32), (24, 12), (20, 20))
"""Heights and widths of the pictures of one row after the other."""


def picture(height: int, width: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    return stream.getvalue()


def pairs(folder: Path, shapes: Sequence[tuple[int, int]], count: int = 8) -> PreferenceData:
    columns = preference_columns(count)
    for side in (0, 1):
        columns[f"jpg_{side}"] = [picture(*shapes[row % len(shapes)], 2 * row + side) for row in range(count)]
    return read_preferences(write_parquet(folder / "pairs.parquet", columns))


def load(folder: Path) -> ModelFamily:
    return find_model(str(folder)).card.family.load(str(folder), device=CPU)


def gradients(
    model: ModelFamily, data: PreferenceData, folder: Path, aspect_ratios: AspectRatios, micro_batch_size: int
) -> tuple[dict[int, float], torch.Tensor, Ledger]:
    """Losses by row, the gradient, and what one step on all pairs cost, of an objective that inverts."""
    settings = TrainingSettings(
        global_batch_size=len(data), micro_batch_size=micro_batch_size, aspect_ratios=aspect_ratios, caption_dropout=0
    )
    encoded = EncodedData(data, model, folder, aspect_ratios)
    policy, accelerator = Policy(model, settings, Ledger()), Accelerator(cpu=True)
    optimizer = torch.optim.SGD([parameter for _, parameter in policy.parameters()])
    batches = StepBatches(data, encoded, settings, 0, 0, accelerator)
    cut = list(batches)
    outputs = accumulate(Trainer(InPO(inversion_steps=4), settings, policy, optimizer, accelerator), batches, 0)
    rows = [row for batch in cut for row in batch.row_ids]
    losses = dict(zip(rows, torch.cat([output.losses for output in outputs]).tolist(), strict=True))
    return losses, torch.cat([parameter.grad.flatten() for _, parameter in policy.parameters()]), policy.ledger


def test_the_buckets_of_a_large_model_are_those_it_was_published_with() -> None:
    buckets = aspect_buckets(find_architecture("sdxl").build(torch.device("meta")))
    published = {
        (512, 2048),
        (640, 1600),
        (768, 1344),
        (832, 1216),
        (896, 1152),
        (1024, 1024),
        (1216, 832),
        (2048, 512),
    }
    assert published <= set(buckets)
    assert all(height % 64 == width % 64 == 0 and height * width <= 1024**2 for height, width in buckets)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_bucket_is_a_size_that_the_model_can_make(kind: str, pipeline_folder: Callable[..., Path]) -> None:
    model = load(pipeline_folder(kind))
    buckets = aspect_buckets(model)
    assert (model.resolution, model.resolution) in buckets
    assert len(buckets) > 3
    for height, width in buckets:
        model.latent_shape(height, width)


def test_a_row_gets_the_bucket_nearest_to_the_mean_shape_of_its_pictures(
    pipeline_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model = load(pipeline_folder("sdxl"))
    columns = preference_columns(3)
    columns["jpg_0"] = [picture(64, 64, 0), picture(16, 60, 1), picture(16, 32, 2)]
    columns["jpg_1"] = [picture(10, 10, 3), picture(16, 60, 4), picture(32, 16, 5)]
    data = read_preferences(write_parquet(tmp_path / "pairs.parquet", columns))
    encoded = EncodedData(data, model, tmp_path / "cache", "buckets")
    assert [encoded.size(row) for row in range(3)] == [(16, 16), (8, 32), (16, 16)]
    assert encoded.posterior([1]).mean.shape == (1, 2, 4, 4, 16)

    told = batch_of(data, encoded, [1]).condition["time_ids"]
    # 16x60 covers 8x32 exactly: 8.53 rows, rounded down as torchvision does
    assert told.tolist() == [[16, 60, 0, 0, 8, 32]]


def test_latents_are_those_of_the_cut_picture(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    model = load(pipeline_folder("sd15"))
    data = pairs(tmp_path, [(8, 32)], 2)
    encoded = EncodedData(data, model, tmp_path / "cache", "buckets")
    pixels = torch.from_numpy(np.asarray(data.image(1, 0), dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)
    torch.testing.assert_close(encoded.posterior([1]).mean[0, 0], model.encode_images(pixels[None]).mean[0])


def test_square_and_bucketed_latents_share_a_folder(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    model, data = load(pipeline_folder("sd15")), pairs(tmp_path, SHAPES)
    first = EncodedData(data, model, tmp_path / "cache").posterior([3]).mean
    bucketed = EncodedData(data, model, tmp_path / "cache", "buckets")
    again = EncodedData(data, model, tmp_path / "cache").posterior([3]).mean
    assert torch.equal(first, again)
    torch.testing.assert_close(bucketed.posterior([3]).mean, first)  # a square picture is its own bucket
    assert bucketed.posterior([1]).mean.shape != first.shape


def test_rows_of_different_sizes_are_no_micro_batch(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    model, data = load(pipeline_folder("sd15")), pairs(tmp_path, SHAPES)
    encoded = EncodedData(data, model, tmp_path / "cache", "buckets")
    with pytest.raises(ValueError, match="same shape"):
        encoded.posterior([0, 1])


@pytest.mark.parametrize("kind", WRITERS)
def test_any_cut_of_a_batch_of_many_shapes_gives_the_same(
    kind: str, pipeline_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model, data = load(pipeline_folder(kind)), pairs(tmp_path, SHAPES)
    many, gradient, cost = gradients(model, data, tmp_path / "cache", "buckets", 8)
    single, same, as_much = gradients(model, data, tmp_path / "cache", "buckets", 1)
    assert single == pytest.approx(many, rel=1e-4)
    assert torch.allclose(same, gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item())
    assert (cost.policy_forwards, cost.reference_forwards) == (as_much.policy_forwards, as_much.reference_forwards)


def test_square_pictures_train_alike_in_buckets(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    model, data = load(pipeline_folder("sdxl")), pairs(tmp_path, [(16, 16), (20, 20)])
    square, bucketed = (gradients(model, data, tmp_path / "cache", how, 4) for how in ("square", "buckets"))
    assert bucketed[0] == square[0]
    assert torch.equal(bucketed[1], square[1])
