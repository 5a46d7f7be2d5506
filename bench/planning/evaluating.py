"""What making evaluation images would hold in memory: they are sampled and decoded on networks without values."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bench.core.chunks import images_per_chunk
from bench.evaluation.noise import evaluation_generators
from bench.models.family import Condition, ModelFamily
from bench.models.find import FoundArchitecture
from bench.models.frozen import stored_for
from bench.models.guidance import Networks, pair
from bench.models.sampling import sample, uses_classifier_free_guidance
from bench.planning.tracer import Tracer
from bench.records.protocol import GenerationSettings
from bench.training.algorithm import Algorithm
from bench.training.policy import add_adapters
from bench.training.settings import TrainingSettings

TEXT_ENCODERS = "text_encoder"
"""How the names of the networks begin that are released before images are sampled."""


def evaluation_memory(
    model: ModelFamily,
    texts: Mapping[str, Sequence[int]],
    device: torch.device,
    algorithm: Algorithm,
    settings: TrainingSettings,
    generation: GenerationSettings,
) -> int:
    """Bytes at the peak while the images of a run are made; its prompts are encoded before, as captions are before training.

    Args:
        model: on the meta device; its networks are changed.
        texts: shape of each caption embedding, without a batch axis.
        device: where it would run.
        algorithm: what is trained.
        settings: how it is trained.
        generation: how the images are made.
    """
    tracer = Tracer(device, generation.precision)
    decoder = [network for name, network in model.encoders.items() if not name.startswith(TEXT_ENCODERS)]
    networks = _networks(model, tracer, algorithm, settings, generation)
    tracer.place(*decoder)
    count = images_per_chunk(generation.height, generation.width)
    draws = evaluation_generators(generation, [("", image) for image in range(count)])
    with tracer.meter:
        noise = torch.zeros(count, *model.latent_shape(generation.height, generation.width))
        condition = {name: torch.zeros(count, *shape) for name, shape in texts.items()}
        negative = condition if uses_classifier_free_guidance(model, generation) else {}
        model.decode(sample(_traced(model, tracer), networks, noise, condition, negative, generation, draws))
    return tracer.meter.peak


def evaluating_in_bf16(
    found: FoundArchitecture, texts: Mapping[str, Sequence[int]], algorithm: Algorithm, settings: TrainingSettings
) -> int:
    """`evaluation_memory` on a GPU with images that are made in bf16, as a protocol may say."""
    model = found.build(torch.device("meta"))
    generation = (found.generation or model.generation).model_copy(update={"precision": "bf16"})
    return evaluation_memory(model, texts, torch.device("cuda"), algorithm, settings, generation)


def _networks(
    model: ModelFamily,
    tracer: Tracer,
    algorithm: Algorithm,
    settings: TrainingSettings,
    generation: GenerationSettings,
) -> Networks:
    """The denoisers of a run, which count as memory, and so does what merging them takes."""
    if algorithm.negative:
        trained = copy.deepcopy(model.network)  # adapters are fused
        tracer.place(model.network, trained)
        with tracer.meter, torch.no_grad():
            return pair(model.network, model.network, trained, alpha=1, beta=1)
    network = model.change_network(functools.partial(_as_loaded, model, settings, generation))
    tracer.place(network)
    return Networks.single(network)


def _as_loaded(
    model: ModelFamily, settings: TrainingSettings, generation: GenerationSettings, network: nn.Module
) -> None:
    if settings.trainable == "lora":
        rounds = settings.rounds.number if settings.rounds else 1  # adapters of all rounds are joined
        rank = {"lora_rank": rounds * settings.lora_rank}
        add_adapters(network, model.lora_targets, settings.model_copy(update=rank))
    network.requires_grad_(False)
    stored_for(generation.precision)(network)


def _traced(model: ModelFamily, tracer: Tracer) -> ModelFamily:
    """The model, whose networks have no values and predict 0."""
    traced = copy.copy(model)

    def predict(network: nn.Module, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        run = functools.partial(model.predict, network, latents, times, condition)
        return torch.zeros(latents.shape, dtype=tracer.once(str(id(network)), len(latents), run))

    vars(traced)["predict"] = predict  # replaces the method
    return traced
