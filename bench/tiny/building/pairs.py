"""Prompts, images by the tiny model, votes on them, and the preference data that is shipped."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.core.chunks import CHUNK, batch_slices
from bench.core.files import replace_file, write_array
from bench.core.progress import Progress
from bench.core.randomness import normal, uniform
from bench.evaluation.noise import evaluation_noise
from bench.models.family import ModelFamily
from bench.models.guidance import Networks
from bench.models.sampling import generate_images
from bench.records.protocol import GenerationSettings
from bench.tiny import GENERATION, world
from bench.tiny.checker import Checker, Measured
from bench.tiny.voters import named_extras, population_preference, properties

PAIRS = 3000
EVALUATION_COMBINATIONS = 100
EVALUATION_PROMPTS = 200
TUNING_PROMPTS = 64
JPEG_QUALITY = 90
BATCH = 64


def combinations() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """All (object, colour) combinations, split into those for training and those for evaluation; they share none."""
    every = [(name, colour) for name in world.OBJECTS for colour in world.COLOURS]
    order = np.random.default_rng(41).permutation(len(every))
    chosen = set(order[:EVALUATION_COMBINATIONS].tolist())
    return [each for i, each in enumerate(every) if i not in chosen], [
        each for i, each in enumerate(every) if i in chosen
    ]


def draw_requests(allowed: Sequence[tuple[str, str]], count: int, seed: int) -> list[world.Request]:
    """Random requests for allowed combinations, which name extras as often as `world.NAMED` says."""
    requests = []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        name, colour = allowed[int(rng.integers(len(allowed)))]
        drawn = world.draw_request(rng)
        requests.append(dataclasses.replace(drawn, object=name, colour=colour))
    return requests


def evaluation_prompts() -> list[str]:
    """The evaluation prompts, each once, for combinations that no preference pair has."""
    requests = draw_requests(combinations()[1], 20 * EVALUATION_PROMPTS, seed=42)
    return list(dict.fromkeys(request.caption for request in requests))[:EVALUATION_PROMPTS]


def tuning_prompts() -> list[str]:
    """Prompts to choose settings by, each once, for combinations that preference pairs have."""
    requests = draw_requests(combinations()[0], 20 * TUNING_PROMPTS, seed=48)
    return list(dict.fromkeys(request.caption for request in requests))[:TUNING_PROMPTS]


def unused(_step: int) -> list[torch.Generator]:
    """For DDIM, which draws no noise on the way."""
    return []


def generate(model: ModelFamily, requests: Sequence[world.Request], name: str, state: Path) -> Tensor:
    """Two images by the base model per request; uint8, (N, 2, 3, 64, 64).

    Made in pieces that are kept under ``state``, so that an interrupted call continues.
    """
    shape = model.latent_shape(GENERATION.height, GENERATION.width)
    parts: list[NDArray[np.uint8]] = []
    with Progress(f"images for {name}", total=len(requests)) as progress:
        for piece in batch_slices(len(requests), BATCH):
            path = state / f"{name}-{piece.start:06d}.npy"
            if not path.exists():
                captions = [request.caption for request in requests[piece] for _ in (0, 1)]
                addresses = [(row, side) for row in range(piece.start, piece.stop) for side in (0, 1)]
                noise = torch.stack([normal(shape, "tiny pairs", name, row, side) for row, side in addresses])
                pictures = generate_images(model, Networks.single(model.network), captions, noise, GENERATION, unused)
                write_array(path, pictures.reshape(-1, 2, *pictures.shape[1:]).transpose(0, 1, 4, 2, 3))
            parts.append(np.load(path))
            progress.advance(len(parts[-1]))
    return torch.from_numpy(np.concatenate(parts))


def protocol_pictures(
    model: ModelFamily, prompts: Sequence[str], generation: GenerationSettings = GENERATION
) -> Tensor:
    """A model's image for each evaluation prompt under its protocol; uint8, (N, 3, 64, 64)."""
    shape = model.latent_shape(generation.height, generation.width)
    made = []
    for piece in batch_slices(len(prompts), CHUNK):
        captions = list(prompts[piece])
        noise = torch.stack([evaluation_noise(generation, prompt, 0, shape) for prompt in captions])
        made.append(generate_images(model, Networks.single(model.network), captions, noise, generation, unused))
    return torch.from_numpy(np.concatenate(made)).permute(0, 3, 1, 2)


def preferences(checker: Checker, requests: Sequence[world.Request], pictures: Tensor) -> NDArray[np.float64]:
    """The population's P(image 0 preferred) for every pair; (N,)."""
    sides = []
    for side in (0, 1):
        measured = checker.measure(pictures[:, side].float() / 127.5 - 1)
        sides.append(np.stack([properties(request, measured, row) for row, request in enumerate(requests)]))
    return population_preference(*sides)


def votes(preference: NDArray[np.float64], name: str) -> NDArray[np.bool_]:
    """One vote per pair: whether image 0 wins; (N,)."""
    return np.asarray([uniform("tiny votes", name, row) < p for row, p in enumerate(preference)])


def write_preferences(
    path: Path, requests: Sequence[world.Request], pictures: Tensor, preference: NDArray[np.float64], source: str
) -> None:
    """Write Pick-a-Pic's columns and the true ``p_0`` as Parquet; ``source`` says where both pictures come from."""
    wins = votes(preference, source)
    table = pa.table(
        {
            "caption": [request.caption for request in requests],
            "jpg_0": [_jpeg(picture) for picture in pictures[:, 0].numpy()],
            "jpg_1": [_jpeg(picture) for picture in pictures[:, 1].numpy()],
            "label_0": wins.astype(np.float64),
            "p_0": preference,
            "source_0": [source] * len(requests),
            "source_1": [source] * len(requests),
            "split": ["train"] * len(requests),
        }
    )
    replace_file(path, lambda partial: pq.write_table(table, partial))


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture.transpose(1, 2, 0)).save(stream, format="jpeg", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def rates(requests: Sequence[world.Request], measured: Measured) -> dict[str, float]:
    """Share of measured images that show what the caption names, by attribute; extras only where they are named."""
    right: dict[str, list[bool]] = {}
    for row, request in enumerate(requests):
        checks = {
            "object": measured.objects[row] == request.object,
            "colour": measured.colours[row] == request.colour,
            **named_extras(request, measured, row),
        }
        for name, check in checks.items():
            right.setdefault(name, []).append(check)
    return {f"right {name}": float(np.mean(checks)) for name, checks in right.items()}
