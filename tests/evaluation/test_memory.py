"""What is in memory while evaluation images are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import CLIPTextModel
from workshop import Brightness, Workshop

from bench.core.chunks import CHUNK, batch_slices
from bench.evaluation.job import EvaluationJob
from bench.evaluation.loop import evaluate
from bench.evaluation.noise import evaluation_generators, evaluation_noise
from bench.evaluation.sampling_weights import SamplingWeights
from bench.evaluation.scorer import Scorer
from bench.evaluation.weights import base_weights, released_weights
from bench.models.guidance import Networks
from bench.models.sampling import generate_images
from bench.records.evaluations import Evaluation
from bench.records.protocol import GenerationSettings, Protocol, prompts_digest
from bench.training.ledger import Ledger
from bench.training.policy import Policy
from bench.training.settings import Precision, TrainingSettings

KINDS = (UNet2DConditionModel, AutoencoderKL, CLIPTextModel)
PROMPTS = ["a bee", "a cat", "a dog"]
SETTINGS = GenerationSettings(steps=2, guidance_scale=3.0, height=8, width=8, images_per_prompt=20)


def alive() -> dict[int, nn.Module]:
    gc.collect()
    return {id(each): each for each in gc.get_objects() if isinstance(each, KINDS)}


@pytest.fixture
def seen() -> Iterator[list[list[str]]]:
    """The networks in memory at each call of a denoiser, by their classes; those that were there before are left out."""
    before = alive()
    calls: list[list[str]] = []

    def look(module: nn.Module, _: Any) -> None:
        if isinstance(module, UNet2DConditionModel):
            calls.append(sorted(type(each).__name__ for key, each in alive().items() if key not in before))

    handle = register_module_forward_pre_hook(look)
    yield calls
    handle.remove()


@pytest.fixture
def adapters(workshop: Workshop, tmp_path: Path) -> Path:
    """Adapters for the workshop's model, whose effect is not 0."""
    model, random = workshop.model(), torch.Generator().manual_seed(0)
    policy = Policy(model, TrainingSettings(trainable="lora", lora_rank=2), Ledger())
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    model.save_trained(policy.network, tmp_path / "adapters")
    return tmp_path / "adapters"


def evaluated(workshop: Workshop, folder: Path, adapters: Path | None, precision: Precision) -> Evaluation:
    """An evaluation of the workshop's model, with adapters or without, in two chunks of images."""
    model = workshop.model()
    protocol = Protocol(
        model="micro",
        base_weights=model.digest,
        prompts=prompts_digest(PROMPTS),
        prompt_count=len(PROMPTS),
        generation=SETTINGS.model_copy(update={"precision": precision}),
    )
    runs = folder / "runs"
    weights = (
        base_weights(runs, "micro", "micro", protocol)
        if adapters is None
        else released_weights(runs, "micro", str(adapters), None, workshop.model())
    )
    sampling = SamplingWeights(weights, SETTINGS.guidance_scale)
    job = EvaluationJob(
        Evaluation(folder / "evaluations" / protocol.signature),
        "micro",
        model,
        lambda: sampling.networks(model, protocol.generation),
        protocol,
        None,
        PROMPTS,
    )
    return evaluate(job, {"brightness": Scorer(Brightness, PROMPTS)})


@pytest.mark.parametrize("trained", [False, True])
def test_one_denoiser_and_no_text_encoder_are_in_memory_while_images_are_sampled(
    workshop: Workshop, tmp_path: Path, adapters: Path, seen: list[list[str]], trained: bool
) -> None:
    evaluated(workshop, tmp_path, adapters if trained else None, "fp32")
    assert len(seen) == 2 * 2  # two chunks of two steps
    assert seen[0] == ["UNet2DConditionModel"]
    assert seen[-1] == ["AutoencoderKL", "UNet2DConditionModel"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("trained", [False, True])
def test_images_have_the_same_bits_as_with_everything_in_memory_in_float32(
    workshop: Workshop, tmp_path: Path, adapters: Path, trained: bool, precision: Precision
) -> None:
    evaluation = evaluated(workshop, tmp_path, adapters if trained else None, precision)
    model, settings = workshop.model(), SETTINGS.model_copy(update={"precision": precision})
    networks = Networks.single(model.load_trained(adapters) if trained else model.network)
    items = [(prompt, image) for prompt in range(len(PROMPTS)) for image in range(SETTINGS.images_per_prompt)]
    for piece in batch_slices(len(items), CHUNK):
        asked = [(PROMPTS[prompt], image) for prompt, image in items[piece]]
        noise = torch.stack([evaluation_noise(settings, *each, model.latent_shape(8, 8)) for each in asked])
        draws = evaluation_generators(settings, asked)
        expected = generate_images(model, networks, [prompt for prompt, _ in asked], noise, settings, draws)
        found = [np.asarray(Image.open(evaluation.image(*item))) for item in items[piece]]
        assert np.array_equal(np.stack(found), expected)
