"""A training step on networks without values: what it would hold in memory, and what it would compute.

The algorithm runs unchanged, on real latents.  When it calls a network, the network runs without values and the algorithm gets
zeros.  So nothing here is specific to any algorithm; only its calls matter.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from bench.data.preferences import PreferenceData
from bench.models.family import Condition, ModelFamily
from bench.planning.dummy_batches import dummy_batches, whole_groups
from bench.planning.dummy_data import DummyEncoding
from bench.planning.memory_tracker import network_tensors, tensor_bytes
from bench.planning.traced_policy import TracedPolicy
from bench.planning.tracer import Tracer
from bench.training.algorithm import Algorithm
from bench.training.batches import Batches
from bench.training.collecting import BEHAVIOUR
from bench.training.ledger import COUNTS, Ledger
from bench.training.online import OnlineAlgorithm
from bench.training.optimizers import OPTIMIZERS
from bench.training.settings import Precision, TrainingSettings
from bench.training.step import Trainer, accumulate
from bench.training.step_gradients import StepGradients


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process at the peak of training, by part.

    Attributes:
        weights: the trained network, including adapters.
        reference: its frozen copy, if there is one.
        gradients: gradients of the trained weights; with ``gradients_by_step`` one set for each trained sampling step.
        moments: optimizer state.
        snapshots: copies of the weights that training keeps: earlier ones, or their average.
        activations: everything else that is alive at the peak: what the backward needs, and working memory.
    """

    weights: int
    reference: int
    gradients: int
    moments: int
    snapshots: int
    activations: int

    @property
    def peak(self) -> int:
        """The sum."""
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True, slots=True)
class DryRun:
    """The result of a dry run.

    Attributes:
        memory: bytes at the peak.
        parameters: number of parameters of the trained network.
        trained: shapes of the trained weights.
        flops: operations per image, by name of `bench.training.ledger.COUNTS`.
    """

    memory: Memory
    parameters: int
    trained: Sequence[torch.Size]
    flops: Mapping[str, float]

    @property
    def trainable(self) -> int:
        """How many parameters are trained."""
        return sum(shape.numel() for shape in self.trained)

    def with_optimizer(self, name: str) -> DryRun:
        """The same with another optimizer, which changes only the optimizer state."""
        memory = dataclasses.replace(self.memory, moments=sum(map(OPTIMIZERS[name].state, self.trained)))
        return dataclasses.replace(self, memory=memory)


def dry_run(
    model: ModelFamily,
    texts: Mapping[str, Sequence[int]],
    tracer: Tracer,
    algorithm: Algorithm,
    settings: TrainingSettings,
    data: PreferenceData,
    image_precision: Precision,
) -> DryRun:
    """Run one micro-batch, with the gradients of an earlier one already in memory if a batch has several.

    The optimizer is not run, but its state is counted: from the second step on, it is in memory all the time.

    Args:
        model: on the meta device; its network is changed.
        texts: shape of each caption embedding, without a batch axis.
        tracer: where the networks run.
        data: prepared by the algorithm.
        image_precision: arithmetic of images that are made along the training.
    """
    micro = whole_groups(algorithm, min(settings.global_batch_size, settings.micro_batch_size))
    few = settings.model_copy(update={"global_batch_size": micro, "micro_batch_size": micro, "compile": False})
    encoded = DummyEncoding(data, model, model.latent_shape(model.resolution, model.resolution), texts)
    accelerator = Accelerator(cpu=True)
    policy = DryRunPolicy(model, few, tracer, with_reference=algorithm.calls_reference, image_precision=image_precision)
    trained = [parameter for _, parameter in policy.parameters()]
    with tracer.meter:
        algorithm.begin(policy)
        if isinstance(algorithm, OnlineAlgorithm) and algorithm.keeps_behaviour:
            policy.snapshot(BEHAVIOUR)
        if settings.global_batch_size > micro and not settings.gradients_by_step:
            tracer.give_gradients(trained)
        # An optimizer without the trained weights: its zero_grad leaves their gradients in place.
        optimizer = torch.optim.SGD([torch.zeros(1)])
        trainer = Trainer(algorithm, few, policy, optimizer, accelerator)
        by_step = StepGradients(trained) if settings.gradients_by_step else None
        batches = dummy_batches(trainer, data, encoded, 0)
        accumulate(trainer, batches if by_step else FirstBatches(batches), 0, by_step)
        algorithm.end_step(0, policy)
    return DryRun(
        memory=policy.memory_parts(tracer.meter.peak, by_step.tensors if by_step else _gradients(trained)),
        parameters=sum(parameter.numel() for parameter in policy.network.parameters()),
        trained=[parameter.shape for parameter in trained],
        flops={name: tracer.flops[name] / max(1, getattr(policy.ledger, name)) for name in COUNTS},
    ).with_optimizer(settings.optimizer)


class FirstBatches:
    """The first two micro-batches of a step, one for each sampling step of an algorithm that trains several.

    The second one finds the gradients of the first in memory, as every later one would, so later ones are not run.
    """

    COUNT = 2
    record: ClassVar[Mapping[str, float]] = {}

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    @property
    def size(self) -> int:
        """See `bench.training.batches.Batches`."""
        return self._batches.size

    @property
    def rounds(self) -> int:
        """See `bench.training.batches.Batches`."""
        return min(self.COUNT, self._batches.rounds)

    def check(self, algorithm: Algorithm, record: Mapping[str, Any]) -> None:
        """See `bench.training.batches.Batches`."""
        self._batches.check(algorithm, record)

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self._batches, self.COUNT)


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


class DryRunPolicy(TracedPolicy):
    """A policy whose networks have no values and predict 0."""

    def __init__(
        self,
        model: ModelFamily,
        settings: TrainingSettings,
        tracer: Tracer,
        *,
        with_reference: bool,
        image_precision: Precision,
    ) -> None:
        super().__init__(model, settings, Ledger(), with_reference=with_reference, image_precision=image_precision)
        self._tracer, self._anchor = tracer, torch.zeros((), requires_grad=True)
        tracer.place(self.network, *([self._reference] if self._reference else []))
        tracer.meter.keep(self.average.values())

    def memory_parts(self, peak: int, gradients: Sequence[Tensor]) -> Memory:
        """Peak memory by part, without the optimizer state."""
        known = {
            "weights": tensor_bytes(network_tensors(self.network)),
            "reference": tensor_bytes(network_tensors(self._reference)) if self._reference else 0,
            "gradients": tensor_bytes(gradients),
            "snapshots": sum(tensor_bytes(weights.values()) for weights in (*self.snapshots.values(), self.average)),
        }
        return Memory(**known, moments=0, activations=peak - sum(known.values()))

    def run_network(self, network: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        run = functools.partial(super().run_network, network, latents, timesteps, condition)
        if torch.is_grad_enabled():
            return self._tracer.graph(self.counted_as, "policy_backwards", run, self._anchor)
        return torch.zeros(latents.shape, dtype=self._tracer.once(self.counted_as, len(latents), run))
