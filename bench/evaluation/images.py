"""The images of an evaluation: addressable noise, sampling in fixed chunks, PNG files that record how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from bench.core.chunks import batch_slices, images_per_chunk
from bench.core.files import create_file, partial_of, write_checked
from bench.core.processes import Processes
from bench.core.progress import Progress
from bench.evaluation.job import EvaluationJob, Item
from bench.evaluation.noise import evaluation_generators, evaluation_noise
from bench.models.sampling import encode_prompts, sample

ENCODED_TOGETHER = 512
"""Images whose prompts are encoded before a process loads the denoiser; their embeddings, of SD3 the largest, then take 5.6 GB of main memory."""


def make_missing_images(job: EvaluationJob, processes: Processes) -> None:
    """Make the images that are not yet on disk; every process must call it.

    How images are grouped into chunks depends only on the list of images.  So an image always has the same neighbours, and
    therefore the same bits, whichever process makes it and wherever an earlier call stopped.
    """
    evaluation, items, settings = job.evaluation, job.items, job.settings
    chunks = [items[piece] for piece in batch_slices(len(items), images_per_chunk(settings.height, settings.width))]
    missing = processes.from_main(
        lambda: [chunk for chunk in chunks if not all(evaluation.image(*item).exists() for item in chunk)]
    )
    if not missing:
        return
    left = sum(map(len, missing))
    with Progress(f"images of {job.title}", total=len(items), done=len(items) - left) as progress:
        for piece in batch_slices(len(missing), max(1, ENCODED_TOGETHER // len(chunks[0])) * processes.count):
            part = missing[piece]
            rows = [part[row] for row in batch_slices(len(part), processes.count)]  # one chunk per process
            for _, row in zip(_make(job, processes.share(part)), rows, strict=False):
                progress.advance(sum(map(len, row)))
    processes.gathered([])  # wait until all images are there


def _make(job: EvaluationJob, chunks: Sequence[Sequence[Item]]) -> Iterator[None]:
    """Make and save the images of some chunks, one after another.

    The text encoders are released before the denoiser is loaded, and the autoencoder at the end: a GPU need not hold all of them.
    """
    model, settings = job.model, job.settings
    asked = [[(job.prompts[prompt], image) for prompt, image in chunk] for chunk in chunks]
    encoded = [_in_main_memory(encode_prompts(model, [prompt for prompt, _ in each], settings)) for each in asked]
    model.release_encoders()
    networks = job.load_networks()
    device = next(networks.positive.parameters()).device
    shape = model.latent_shape(settings.height, settings.width)
    for chunk, each, texts in zip(chunks, asked, encoded, strict=True):
        noise = torch.stack([evaluation_noise(settings, *address, shape) for address in each]).to(device)
        condition, negative = ({name: value.to(device) for name, value in text.items()} for text in texts)
        draws = evaluation_generators(settings, each)
        latents = sample(model, networks, noise, condition, negative, settings, draws)
        for item, image in zip(chunk, model.decode(latents), strict=True):
            _save(job, item, image)
        yield
    model.release_encoders()


def _in_main_memory(texts: Iterable[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: value.cpu() for name, value in text.items()} for text in texts]


def _save(job: EvaluationJob, item: Item, image: NDArray[np.uint8]) -> None:
    texts = PngInfo()
    texts.add_itxt("prompt", job.prompts[item[0]])
    texts.add_text("seed", str(job.protocol.generation.seed))
    texts.add_text("image_index", str(item[1]))
    texts.add_text("signature", job.protocol.signature)
    if job.variant is not None:
        texts.add_text("variant", job.variant.signature)
    path = job.evaluation.image(*item)
    with write_checked(path), partial_of(path) as partial:
        create_file(partial)
        Image.fromarray(image).save(partial, format="png", pnginfo=texts)
        partial.replace(path)
