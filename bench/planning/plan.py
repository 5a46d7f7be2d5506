"""What a run will cost, before anything is fetched or trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from bench.core.chunks import images_per_chunk
from bench.data.cache import BATCH
from bench.models.find import FoundArchitecture
from bench.models.sampling import uses_classifier_free_guidance
from bench.planning.counting import count_calls
from bench.planning.dry_run import DryRun, dry_run
from bench.planning.dummy_data import prepared_data, text_shapes
from bench.planning.gpus import GpuSpec
from bench.planning.tracer import Tracer
from bench.training.algorithm import Algorithm
from bench.training.distributed.strategy import refuse_small_batch
from bench.training.ledger import in_forwards, refuse_spent_budget
from bench.training.settings import TrainingSettings

CUDA, META = torch.device("cuda"), torch.device("meta")
FLOAT = 4
"""Bytes of a number in caches and checkpoints."""

CHANGES: Sequence[Mapping[str, Any]] = (
    {"precision": "bf16"}, {"gradient_checkpointing": True}, {"micro_batch_size": 1}, {"optimizer": "adamw-8bit"},
    {"optimizer": "adafactor"}, {"trainable": "lora"},
)  # fmt: skip
"""What makes a run smaller: first what leaves the result the same or nearly so, last what trains something else."""


@dataclasses.dataclass(frozen=True, slots=True)
class Encoding:
    """What it costs to make latents and embeddings, which is done once for all algorithms.

    Attributes:
        parameters: of each network, by name.
        memory: bytes at the peak.
        flops: operations for one pair with a caption of its own.
        texts: shape of each embedding of a caption by name, without a batch axis.
    """

    parameters: Mapping[str, int]
    memory: int
    flops: float
    texts: Mapping[str, Sequence[int]]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What one run of one algorithm costs one process.

    Attributes:
        settings: how it trains.
        processes: that share its pairs evenly, each with weights of its own (DDP).
        encoding: before training.
        training: memory, parameters and operations of training.
        calls: forwards and backwards for one pair, per image, by name of `bench.training.ledger.COUNTS`.
        pairs: how many pairs are seen; None where a budget is in seconds.
        prepared: forwards of the base model before training, for data of `bench.planning.dummy_data.ROWS` captions.
        latent_bytes: of the cache, for one pair.
        text_bytes: of the cache, for one caption.
        image_bytes: of one evaluation image, at most.
        image_forwards: of the denoiser for one evaluation image; its size is taken for that of training.
        image_precision: arithmetic of these.
        checkpoint_bytes: of weights and moments.
    """

    settings: TrainingSettings
    processes: int
    encoding: Encoding
    training: DryRun
    calls: Mapping[str, float]
    pairs: float | None
    prepared: int
    latent_bytes: int
    text_bytes: int
    image_bytes: int
    image_forwards: int
    image_precision: str
    checkpoint_bytes: int

    def lacking(self, card: GpuSpec) -> list[str]:
        """What a card has too little memory for, of encoding and training; evaluation aside."""
        memory = {"encoding": self.encoding.memory, "training": self.training.memory.peak}
        return [part for part, size in memory.items() if not card.fits(size)]

    @property
    def flops_per_pair(self) -> float:
        """Operations for one pair, forwards and backwards of all networks."""
        return sum(self.calls[name] * self.training.flops[name] for name in self.calls)

    @property
    def flops(self) -> float | None:
        """Operations of the whole training and of what the algorithm prepares with the base model."""
        if self.pairs is None:
            return None
        return self.pairs * self.flops_per_pair + self.prepared * self._forward

    @property
    def flops_per_image(self) -> float:
        """Operations of the denoiser for one evaluation image."""
        return self.image_forwards * self._forward

    @property
    def _forward(self) -> float:
        return max(self.training.flops["reference_forwards"], self.training.flops["policy_forwards"])

    def seconds(self, peak: float, utilisation: float) -> float:
        """How long training takes on cards, one a process, that compute ``peak`` operations a second at most."""
        if self.flops is None and self.settings.budget is not None:
            return self.settings.budget.amount / self.processes
        return (self.flops or 0.0) / (peak * utilisation * self.processes)


def make_plan(
    found: FoundArchitecture,
    encoding: Encoding,
    algorithm: Algorithm,
    settings: TrainingSettings,
    device: torch.device = CUDA,
    processes: int = 1,
) -> Plan:
    """Plan one run.

    Args:
        encoding: by the same model.
        device: where it would be; nothing is done there.

    Raises:
        UserError: preparing the data takes the whole budget, or a process would have no pair of a batch.
    """
    refuse_small_batch(settings, processes)
    model = found.build(META)
    generation = found.generation or model.generation
    data, prepared = prepared_data(algorithm, model)
    calls = count_calls(model, algorithm, settings, data)
    share, stage = _share(settings, processes), Tracer(device, settings.precision)
    training = dry_run(model, encoding.texts, stage, algorithm, share, data)
    latents = math.prod(model.latent_shape(model.resolution, model.resolution))
    return Plan(
        settings=settings,
        processes=processes,
        encoding=encoding,
        training=training,
        calls=calls,
        pairs=_pairs(settings, calls, prepared),
        prepared=prepared,
        latent_bytes=FLOAT * data.width * latents,
        text_bytes=FLOAT * sum(math.prod(shape) for shape in encoding.texts.values()),
        image_bytes=3 * generation.height * generation.width,
        image_forwards=generation.steps * (2 if uses_classifier_free_guidance(model, generation) else 1),
        image_precision=generation.precision,
        checkpoint_bytes=FLOAT * training.trainable + training.memory.moments + training.memory.snapshots,
    )


def encoding_cost(found: FoundArchitecture) -> Encoding:
    """Run the autoencoder and the text encoders without values, on as many rows as they see images_per_chunk."""
    stage, model = Tracer(CUDA, "fp32"), found.build(META)
    stage.place(*model.encoders.values())
    pictures = min(2 * BATCH, images_per_chunk(model.resolution, model.resolution))
    with stage.meter:
        with stage.counted("texts"):
            texts = text_shapes(model.encode_text([""] * BATCH))
        with stage.counted("images"):
            model.encode_images(torch.zeros(pictures, 3, model.resolution, model.resolution))
    parameters = {
        name: sum(weight.numel() for weight in network.parameters()) for name, network in model.encoders.items()
    }
    flops = stage.flops["texts"] / BATCH + 2 * stage.flops["images"] / pictures
    return Encoding(parameters, stage.meter.peak, flops, texts)


def smaller(found: FoundArchitecture, algorithm: Algorithm, plan: Plan) -> Iterator[tuple[dict[str, Any], DryRun]]:
    """One change of `CHANGES` after the other that makes training smaller, each on top of those before, and training then."""
    changes: dict[str, Any] = {}
    settings, training = plan.settings, plan.training
    data, _ = prepared_data(algorithm, found.build(META))
    for change in CHANGES:
        changed = settings.model_copy(update=change)
        if changed == settings:
            continue
        if "optimizer" in change:
            less = training.with_optimizer(changed.optimizer)
        else:
            share, stage = _share(changed, plan.processes), Tracer(CUDA, changed.precision)
            less = dry_run(found.build(META), plan.encoding.texts, stage, algorithm, share, data)
        if less.memory.peak < training.memory.peak:
            settings, training = changed, less
            changes |= change
            yield dict(changes), training


def _share(settings: TrainingSettings, processes: int) -> TrainingSettings:
    """With the largest part of a batch that one process has."""
    return settings.model_copy(update={"global_batch_size": math.ceil(settings.global_batch_size / processes)})


def _pairs(settings: TrainingSettings, calls: Mapping[str, float], prepared: int) -> float | None:
    """Pairs until the end; of a budget in forwards, those that prepared the data are spent before the first pair."""
    budget = settings.budget
    if budget is None:
        return settings.steps * settings.global_batch_size
    if budget.unit == "seconds":
        return None
    refuse_spent_budget(budget, prepared)
    pairs = budget.amount if budget.unit == "pairs" else (budget.amount - prepared) / in_forwards(calls)
    return math.ceil(pairs / settings.global_batch_size) * settings.global_batch_size
