"""Images generated for captions: the candidates of rankings and calibrated rewards."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from bench.core.chunks import batch_slices, images_per_chunk
from bench.core.code import used_code
from bench.core.files import replace_file, sweep
from bench.core.locks import exclusive
from bench.core.manifest import is_sealed, seal, unbroken
from bench.core.progress import Progress
from bench.core.randomness import normal, step_generators
from bench.core.values import digest
from bench.data.preferences import PreferenceData
from bench.data.reading import read_preferences
from bench.models.family import ModelFamily
from bench.models.guidance import Networks
from bench.models.sampling import generate_images
from bench.records.protocol import GenerationSettings

SHARD = 64


def generate_candidates(
    model: ModelFamily, captions: Sequence[str], count: int, settings: GenerationSettings, folder: Path
) -> PreferenceData:
    """Unlabelled data with ``count`` images by ``model`` for each distinct caption.

    An image's noise is a function of caption, index and the settings' seed, and differs from the evaluation's.  Images are
    written in shards as they are generated, so an interrupted generation resumes.

    Args:
        folder: parent of a folder that is used only for these captions, this model, count and settings.

    Raises:
        UserError: a shard is not what it was when it was written.
    """
    distinct = list(dict.fromkeys(captions))
    code = used_code([__name__, type(model).__module__])
    shards = folder / digest([dict(model.parts), code, distinct, count, settings.model_dump()])
    lock = exclusive(shards / ".lock", f"generates the images in {shards}", wait=True)
    with lock, Progress("candidates", total=len(distinct)) as progress:
        sweep(shards)
        for piece in batch_slices(len(distinct), SHARD):
            path = shards / f"{piece.start:08d}.parquet"
            if not is_sealed(path):
                texts = distinct[piece]
                rows = _draw(model, texts, count, settings)
                columns = {f"jpg_{place}": [row[place] for row in rows] for place in range(count)}
                table = pa.table({"caption": texts, **columns})
                replace_file(path, lambda partial, table=table: pq.write_table(table, partial))  # type: ignore[misc]
                seal(path)
            unbroken(path)
            progress.advance(piece.stop - piece.start)
    data = read_preferences(shards, cache=shards)
    source = f"{count} images by {model.digest} for each caption"
    return dataclasses.replace(data, report=dataclasses.replace(data.report, source=source))


def _draw(
    model: ModelFamily, captions: Sequence[str], count: int, settings: GenerationSettings
) -> list[tuple[bytes, ...]]:
    """Encoded images, ``count`` per caption."""
    items = [(caption, place) for caption in captions for place in range(count)]
    device = next(model.network.parameters()).device
    shape = model.latent_shape(settings.height, settings.width)
    images: list[bytes] = []
    for piece in batch_slices(len(items), images_per_chunk(settings.height, settings.width)):
        part = items[piece]
        noise = torch.stack([normal(shape, "candidate", settings.seed, *item) for item in part]).to(device)
        generated = generate_images(
            model,
            Networks.single(model.network),
            [caption for caption, _ in part],
            noise,
            settings,
            step_generators([("candidate sampler", settings.seed, *item) for item in part]),
        )
        images += [_png(Image.fromarray(image)) for image in generated]
    return [tuple(images[piece]) for piece in batch_slices(len(images), count)]


@torch.no_grad()
def reconstructed(model: ModelFamily, pixels: Tensor) -> list[bytes]:
    """Encoded images as the model's autoencoder gives them back, by the mean of its posterior.

    Args:
        pixels: images in [-1, 1], (N, 3, H, W).
    """
    return [_png(Image.fromarray(image)) for image in model.decode(model.encode_images(pixels).mean)]


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="png")
    return stream.getvalue()
