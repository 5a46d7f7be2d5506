"""What a run will cost, before anything is downloaded or trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from bench.core.chunks import images_per_chunk
from bench.data.cache import BATCH, ORIENTATIONS
from bench.models.family import Posterior
from bench.models.find import FoundArchitecture
from bench.models.sampling import forwards_per_image
from bench.planning.counting import count_calls
from bench.planning.dry_run import DryRun, dry_run
from bench.planning.dummy_batches import whole_groups
from bench.planning.dummy_data import prepared_data, text_shapes
from bench.planning.evaluating import evaluation_memory
from bench.planning.gpus import GpuSpec
from bench.planning.tracer import Tracer
from bench.training.algorithm import Algorithm
from bench.training.distributed.strategy import refuse_small_batch
from bench.training.judge_fitting import JudgeFittingAlgorithm
from bench.training.ledger import in_forwards, refuse_spent_budget
from bench.training.online import OnlineAlgorithm, SamplingAlgorithm, samples_together
from bench.training.settings import ONLINE_UNITS, Precision, Rounds, TrainingSettings

CUDA, META = torch.device("cuda"), torch.device("meta")
FLOAT = 4
"""Bytes per number in caches and checkpoints."""

CHANGES: Sequence[Mapping[str, Any]] = (
    {"precision": "bf16"}, {"gradient_checkpointing": True}, {"micro_batch_size": 1}, {"optimizer": "adamw-8bit"},
    {"optimizer": "adafactor"}, {"trainable": "lora"},
)  # fmt: skip
"""Changes that make a run smaller: first those that hardly affect the result, last those that train something else."""


@dataclasses.dataclass(frozen=True, slots=True)
class Encoding:
    """The cost of encoding images and captions, which is done once for all algorithms.

    Attributes:
        parameters: number of parameters of each network, by name.
        memory: bytes at the peak.
        text_flops: operations per caption.
        image_flops: operations per image.
        texts: shape of each caption embedding by name, without a batch axis.
    """

    parameters: Mapping[str, int]
    memory: int
    text_flops: float
    image_flops: float
    texts: Mapping[str, Sequence[int]]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What one run of one algorithm costs one process.

    Attributes:
        settings: how it trains.
        processes: number of processes that share its pairs evenly, each with all weights (DDP).
        encoding: the cost of encoding before training.
        encoding_flops: operations of encoding per pair: its caption and, if the algorithm reads them, its images, mirrored too if training
            mirrors them.
        training: memory, parameters and operations of training.
        evaluating: bytes at the peak while evaluation images are made; metrics are not counted.
        calls: forwards and backwards per pair, counted per image, by name of `bench.training.ledger.COUNTS`.
        pairs: how many pairs are seen, of an online algorithm samples; None if the budget is in seconds.
        reward_calls: how many images are scored per sample of an online algorithm; 0 for others.
        prepared: forwards of the base model before training, for data with `bench.planning.dummy_data.ROWS` captions.
        pictures: how many images training in rounds makes, at most; 0 for other training.
        opponents: how many of these a judge is fitted against; each is kept beside an image of the data.
        judged: how often an image is scored in rounds, fits of the judge included, at most; 0 for other training.
        latent_bytes: cache size per pair.
        text_bytes: cache size per caption.
        image_bytes: upper bound of the size of an evaluation image.
        image_forwards: forwards of the denoiser per evaluation image, which is assumed to have the training resolution.
        image_precision: precision of these forwards.
        checkpoint_bytes: size of weights, snapshots and moments.
    """

    settings: TrainingSettings
    processes: int
    encoding: Encoding
    encoding_flops: float
    training: DryRun
    evaluating: int
    calls: Mapping[str, float]
    pairs: float | None
    reward_calls: int
    prepared: int
    pictures: int
    opponents: int
    judged: int
    latent_bytes: int
    text_bytes: int
    image_bytes: int
    image_forwards: int
    image_precision: Precision
    checkpoint_bytes: int

    @property
    def weights_bytes(self) -> int:
        """Size of the trained weights on disk."""
        return FLOAT * self.training.trainable

    def lacking(self, gpu: GpuSpec) -> list[str]:
        """For which of encoding, training and evaluating a GPU has too little memory."""
        sizes = {"encoding": self.encoding.memory, "training": self.training.memory.peak, "evaluating": self.evaluating}
        return [part for part, size in sizes.items() if not gpu.fits(size)]

    @property
    def flops_per_pair(self) -> float:
        """Operations per pair: forwards and backwards of all networks."""
        return sum(self.calls[name] * self.training.flops[name] for name in self.calls)

    @property
    def flops(self) -> float | None:
        """Operations of the whole training, and of preparing the data with the base model; None if the budget is in seconds."""
        if self.pairs is None:
            return None
        return self.pairs * self.flops_per_pair + (self.prepared + self.pictures * self.image_forwards) * self._forward

    @property
    def flops_per_image(self) -> float:
        """Operations of the denoiser per evaluation image."""
        return self.image_forwards * self._forward

    @property
    def _forward(self) -> float:
        return max(self.training.flops["reference_forwards"], self.training.flops["policy_forwards"])

    def seconds(self, peak: float, utilisation: float) -> float:
        """How long training takes on one GPU per process, each with ``peak`` operations per second at this utilisation."""
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
        encoding: the encoding cost of the same model.
        device: where it would run; nothing is run there.

    Raises:
        UserError: preparing the data uses up the budget, or a process would get no pairs of a batch.
    """
    refuse_small_batch(settings, processes, samples_together(algorithm))
    model = found.build(META)
    generation = found.generation or model.generation
    data, prepared = prepared_data(algorithm, model)
    calls = count_calls(model, algorithm, settings, data)
    share, tracer = _share(settings, processes), Tracer(device, settings.precision)
    training = dry_run(model, encoding.texts, tracer, algorithm, share, data, generation.precision)
    elements = math.prod(model.latent_shape(model.resolution, model.resolution))
    pictures = len(ORIENTATIONS[settings.horizontal_flip]) if algorithm.reads_pictures else 0
    return Plan(
        settings=settings,
        processes=processes,
        encoding=encoding,
        encoding_flops=encoding.text_flops + 2 * pictures * encoding.image_flops,
        training=training,
        evaluating=evaluation_memory(found.build(META), encoding.texts, device, algorithm, settings, generation),
        calls=calls,
        pairs=planned_pairs(algorithm, settings, calls, prepared),
        reward_calls=algorithm.judged * len(algorithm.rewards) if isinstance(algorithm, SamplingAlgorithm) else 0,
        prepared=prepared,
        pictures=planned_pictures(algorithm, settings),
        opponents=planned_opponents(algorithm, settings),
        judged=planned_scores(algorithm, settings),
        latent_bytes=FLOAT * len(Posterior._fields) * pictures * data.width * elements,
        text_bytes=FLOAT * sum(math.prod(shape) for shape in encoding.texts.values()),
        image_bytes=3 * generation.height * generation.width,
        image_forwards=forwards_per_image(model, generation),
        image_precision=generation.precision,
        checkpoint_bytes=FLOAT * training.trainable + training.memory.moments + training.memory.snapshots,
    )


def encoding_cost(found: FoundArchitecture) -> Encoding:
    """Run the autoencoder and the text encoders without values, on batches as large as those of real encoding."""
    tracer, model = Tracer(CUDA, "fp32"), found.build(META)
    tracer.place(*model.encoders.values())
    images = min(2 * BATCH, images_per_chunk(model.resolution, model.resolution))
    with tracer.meter:
        with tracer.counted("texts"):
            texts = text_shapes(model.encode_text([""] * BATCH))
        with tracer.counted("images"):
            model.encode_images(torch.zeros(images, 3, model.resolution, model.resolution))
    parameters = {
        name: sum(weight.numel() for weight in network.parameters()) for name, network in model.encoders.items()
    }
    text_flops, image_flops = tracer.flops["texts"] / BATCH, tracer.flops["images"] / images
    return Encoding(parameters, tracer.meter.peak, text_flops, image_flops, texts)


def smaller(found: FoundArchitecture, algorithm: Algorithm, plan: Plan) -> Iterator[tuple[dict[str, Any], DryRun]]:
    """The changes of `CHANGES` that reduce training memory, each on top of the earlier ones, with the resulting dry run."""
    changes: dict[str, Any] = {}
    settings, training = plan.settings, plan.training
    data, _ = prepared_data(algorithm, found.build(META))
    for each in CHANGES:
        change = {
            name: whole_groups(algorithm, value) if name == "micro_batch_size" else value
            for name, value in each.items()
        }
        changed = settings.model_copy(update=change)
        if changed == settings:
            continue
        if "optimizer" in change:
            less = training.with_optimizer(changed.optimizer)
        else:
            share, tracer = _share(changed, plan.processes), Tracer(CUDA, changed.precision)
            less = dry_run(found.build(META), plan.encoding.texts, tracer, algorithm, share, data, plan.image_precision)
        if less.memory.peak < training.memory.peak:
            settings, training = changed, less
            changes |= change
            yield dict(changes), training


def _share(settings: TrainingSettings, processes: int) -> TrainingSettings:
    """The settings of one process: its batch is the largest share of the global batch that a process gets."""
    return settings.model_copy(update={"global_batch_size": math.ceil(settings.global_batch_size / processes)})


def planned_pictures(algorithm: Algorithm, settings: TrainingSettings) -> int:
    """Images of all rounds of a training in rounds, for data with as many captions as a round uses, or more."""
    rounds = settings.rounds
    if rounds is None:
        return 0
    return rounds.number * _choices(settings, rounds) + planned_opponents(algorithm, settings)


def planned_opponents(algorithm: Algorithm, settings: TrainingSettings) -> int:
    """Those of them that a judge is fitted against."""
    if settings.rounds is None or not isinstance(algorithm, JudgeFittingAlgorithm):
        return 0
    return settings.rounds.number * algorithm.judge_captions * algorithm.judge_samples


def planned_scores(algorithm: Algorithm, settings: TrainingSettings) -> int:
    """Scores of images in a training in rounds: those that it chooses from, and those that fits of the judge need.

    Held-out pairs are not counted, whose number depends on the data.
    """
    rounds = settings.rounds
    if rounds is None:
        return 0
    chosen = rounds.number * _choices(settings, rounds)
    if not isinstance(algorithm, JudgeFittingAlgorithm):
        return chosen
    pairs = algorithm.fit.steps * algorithm.fit.batch  # of the first fit; each round adds as many opponents
    return chosen + 2 * pairs * (1 + 2 * rounds.number)


def _choices(settings: TrainingSettings, rounds: Rounds) -> int:
    """Images of a round that pairs are chosen from."""
    seen = settings.steps * settings.global_batch_size
    return rounds.candidates * (seen if rounds.captions is None else min(seen, rounds.captions))


def planned_pairs(
    algorithm: Algorithm, settings: TrainingSettings, calls: Mapping[str, float], prepared: int
) -> float | None:
    """Pairs, or samples of an algorithm that samples, until the end.

    From a budget in forwards, those spent on preparing the data are deducted first.  Collections are made whole, and counted as if all their
    samples were trained on.
    """
    budget, batch = settings.budget, settings.global_batch_size
    size = batch * (algorithm.updates if isinstance(algorithm, OnlineAlgorithm) else 1)
    if budget is None:
        return (
            math.ceil(settings.steps * batch / size) * size * (1 if settings.rounds is None else settings.rounds.number)
        )
    if budget.unit == "seconds":
        return None
    refuse_spent_budget(budget, prepared)
    if isinstance(algorithm, SamplingAlgorithm) and budget.unit in ONLINE_UNITS:
        samples = budget.amount
        if budget.unit == "rewards":
            samples = (budget.amount / len(algorithm.rewards) - algorithm.judged_once) / algorithm.judged
        return max(1, math.ceil(samples / size)) * size
    pairs = budget.amount if budget.unit == "pairs" else (budget.amount - prepared) / in_forwards(calls)
    return math.ceil(pairs / size) * size
