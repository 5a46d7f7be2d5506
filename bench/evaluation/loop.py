"""The evaluation loop: images under the protocol, then scores, both written as they are made."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.core.chunks import batch_slices, images_per_chunk
from bench.core.files import make_folder, write_checked, write_json
from bench.core.processes import ALONE, Processes
from bench.core.progress import Progress
from bench.core.randomness import normal
from bench.models.family import ModelFamily
from bench.models.guidance import Networks
from bench.models.sampling import generate_images
from bench.records.protocol import GenerationSettings, Protocol, Variant
from bench.records.runs import Evaluation
from bench.records.scores import MetricInfo, MetricRecord, PromptedImage
from bench.scoring.loop import refuse_constant, score_pictures
from bench.scoring.metric import Metric

Item = tuple[int, int]
"""Prompt index and image index."""


class Scorer:
    """A metric for some prompts that is in memory only while it is needed: training beside all of them may not fit a card.

    Args:
        load: loads the metric.
        prompts: those of the images, one for each.
    """

    def __init__(self, load: Callable[[], Metric], prompts: Sequence[str]) -> None:
        self._load, self._prompts = load, prompts

    def load(self) -> Metric:
        """The metric."""
        return self._load().for_prompts(self._prompts)

    @functools.cached_property
    def description(self) -> tuple[dict[str, Any], MetricInfo]:
        """The metric's identity, and what a reader must know of it; it is loaded for this once."""
        metric = self.load()
        return metric.identity(), metric.info


def evaluate(
    evaluation: Evaluation,
    title: str,
    load_networks: Callable[[], Networks],
    model: ModelFamily,
    protocol: Protocol,
    variant: Variant | None,
    prompts: Sequence[str],
    scorers: Mapping[str, Scorer],
    processes: Processes = ALONE,
) -> Evaluation:
    """Judge some weights under the protocol, from where an earlier call stopped.

    Several processes share images and scores and make the same as one alone: an image is drawn with the same neighbours whoever
    draws it, and the main process writes the scores in their order.

    Args:
        evaluation: where images and scores go.
        title: what the progress display calls the weights.
        load_networks: gives the denoisers; called only when images are missing.
        variant: how the sampling departs from the protocol's; None if it does not.
        prompts: the protocol's prompts.
        scorers: by name.
        processes: who does it; all see the same files.

    Raises:
        UserError: a metric returns scores that are not finite, too few, or all the same.
    """
    settings = protocol.generation
    items = [(p, i) for p in range(len(prompts)) for i in range(settings.images_per_prompt)]
    described = _described(scorers, protocol)
    judged = processes.from_main(lambda: _judged(evaluation, described, len(items)))
    if judged is None:
        return evaluation
    if processes.main:
        _begin(evaluation, protocol, variant, prompts, judged)

    _generate(evaluation, title, load_networks, model, protocol, variant, prompts, items, processes)
    pictures = [
        PromptedImage(evaluation.image(p, i), prompts[p], {"prompt_index": p, "image_index": i}) for p, i in items
    ]
    for name, scorer in scorers.items():
        if name in judged:
            continue
        _score(evaluation, title, name, scorer, described[name].signature, pictures, processes)
        judged[name] = described[name]
        if processes.main:
            evaluation.write_metrics(judged)
    if processes.main:
        (evaluation.folder / "DONE").touch()
    return evaluation


def _score(
    evaluation: Evaluation,
    title: str,
    name: str,
    scorer: Scorer,
    signature: str,
    pictures: Sequence[PromptedImage],
    processes: Processes,
) -> None:
    metric = scorer.load()
    scores = score_pictures(evaluation.scores, title, name, metric, signature, pictures, processes)
    refuse_constant(name, metric, scores, title)


def _judged(
    evaluation: Evaluation, described: Mapping[str, MetricRecord], images: int
) -> dict[str, MetricRecord] | None:
    """The metrics of an earlier call that are good still; None when nothing is left to do."""
    judged = {
        name: value
        for name, value in _complete(evaluation, images).items()
        if value.signature == described.get(name, value).signature
    }
    return None if evaluation.done and described.keys() <= judged.keys() else judged


def _begin(
    evaluation: Evaluation,
    protocol: Protocol,
    variant: Variant | None,
    prompts: Sequence[str],
    judged: Mapping[str, MetricRecord],
) -> None:
    (evaluation.folder / "DONE").unlink(missing_ok=True)
    make_folder(evaluation.images)
    if variant is not None:
        write_json(evaluation.folder / "variant.json", variant.model_dump(mode="json"))
    write_json(evaluation.folder / "protocol.json", protocol.model_dump())
    write_json(evaluation.folder / "prompts.json", list(prompts))
    evaluation.write_metrics(judged)


def evaluation_noise(settings: GenerationSettings, prompt: str, image_index: int, shape: Sequence[int]) -> torch.Tensor:
    """The noise an image starts from: a function of prompt, index and seed alone; float32, of ``shape``."""
    return normal(shape, "evaluation", settings.seed, prompt, image_index)


def _generate(
    evaluation: Evaluation,
    title: str,
    load_networks: Callable[[], Networks],
    model: ModelFamily,
    protocol: Protocol,
    variant: Variant | None,
    prompts: Sequence[str],
    items: Sequence[Item],
    processes: Processes,
) -> None:
    size = (protocol.generation.height, protocol.generation.width)
    chunks = [items[piece] for piece in batch_slices(len(items), images_per_chunk(*size))]
    missing = processes.from_main(
        lambda: [chunk for chunk in chunks if not all(evaluation.image(*item).exists() for item in chunk)]
    )
    if not missing:
        return
    settings, networks = protocol.sampled_by(variant), load_networks()
    device = next(networks.positive.parameters()).device
    shape = model.latent_shape(settings.height, settings.width)
    left = sum(map(len, missing))
    with Progress(f"images of {title}", total=len(items), done=len(items) - left) as progress:
        for piece in batch_slices(len(missing), processes.count):  # a chunk for every process
            for chunk in processes.share(missing[piece]):
                noise = torch.stack([evaluation_noise(settings, prompts[p], i, shape) for p, i in chunk]).to(device)
                pictures = generate_images(model, networks, [prompts[p] for p, _ in chunk], noise, settings)
                for item, picture in zip(chunk, pictures, strict=True):
                    _save_image(evaluation, item, picture, prompts[item[0]], protocol, variant)
            progress.advance(sum(map(len, missing[piece])))
    processes.gathered([])  # all images are there


def _save_image(
    evaluation: Evaluation,
    item: Item,
    picture: NDArray[np.uint8],
    prompt: str,
    protocol: Protocol,
    variant: Variant | None,
) -> None:
    facts = PngInfo()
    facts.add_itxt("prompt", prompt)
    facts.add_text("seed", str(protocol.generation.seed))
    facts.add_text("image_index", str(item[1]))
    facts.add_text("signature", protocol.signature)
    if variant is not None:
        facts.add_text("variant", variant.signature)
    path = evaluation.image(*item)
    partial = path.with_suffix(".partial")
    with write_checked(path):
        Image.fromarray(picture).save(partial, format="png", pnginfo=facts)
        partial.replace(path)


def _described(scorers: Mapping[str, Scorer], protocol: Protocol) -> dict[str, MetricRecord]:
    described = {}
    for name, scorer in scorers.items():
        identity, info = scorer.description
        described[name] = MetricRecord(name, protocol.metric_signature(name, identity), identity, info)
    return described


def _complete(evaluation: Evaluation, images: int) -> dict[str, MetricRecord]:
    """The metrics of an earlier call, with which every image has been scored."""
    counts = Counter((record["metric"], record["signature"]) for record in evaluation.score_records())
    return {name: value for name, value in evaluation.metrics().items() if counts[name, value.signature] == images}
