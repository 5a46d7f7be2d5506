"""The images of an evaluation: addressable noise, sampling in fixed chunks, PNG files that record how they were made."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.core.chunks import batch_slices, images_per_chunk
from bench.core.files import create_file, partial_of, write_checked
from bench.core.processes import Processes
from bench.core.progress import Progress
from bench.evaluation.job import EvaluationJob, Item
from bench.evaluation.noise import evaluation_generators, evaluation_noise
from bench.models.sampling import generate_images


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
    networks = job.load_networks()
    device = next(networks.positive.parameters()).device
    shape = job.model.latent_shape(settings.height, settings.width)
    left = sum(map(len, missing))
    with Progress(f"images of {job.title}", total=len(items), done=len(items) - left) as progress:
        for piece in batch_slices(len(missing), processes.count):  # one chunk per process
            for chunk in processes.share(missing[piece]):
                asked = [(job.prompts[prompt], image) for prompt, image in chunk]
                noise = torch.stack([evaluation_noise(settings, *each, shape) for each in asked]).to(device)
                prompts, draws = [prompt for prompt, _ in asked], evaluation_generators(settings, asked)
                images = generate_images(job.model, networks, prompts, noise, settings, draws)
                for item, image in zip(chunk, images, strict=True):
                    _save(job, item, image)
            progress.advance(sum(map(len, missing[piece])))
    processes.gathered([])  # wait until all images are there


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
