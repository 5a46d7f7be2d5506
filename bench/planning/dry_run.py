"""A training step on networks without values: what it would hold in memory, and what it would compute.

The algorithm runs as it is, on real latents.  Where it asks a network, the network runs without values and the algorithm gets
zeros.  So nothing is known here of any algorithm but what it asks for.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from bench.data.preferences import PreferenceData
from bench.models.family import Condition, ModelFamily
from bench.planning.dummy_data import DummyEncoding
from bench.planning.memory_tracker import network_tensors, tensor_bytes
from bench.planning.traced_policy import TracedPolicy
from bench.planning.tracer import Tracer
from bench.training.algorithm import Algorithm, Need
from bench.training.batches import StepBatches
from bench.training.ledger import COUNTS, Ledger
from bench.training.optimizers import OPTIMIZERS
from bench.training.settings import TrainingSettings
from bench.training.step import Trainer, accumulate


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process at the peak of training, by part.

    Attributes:
        weights: of the trained network, adapters included.
        reference: its frozen copy, if there is one.
        gradients: of what is trained.
        moments: what the optimizer remembers.
        snapshots: earlier weights that the algorithm keeps.
        activations: everything else that lives at the peak: what backward needs, and working memory.
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
    """What was seen.

    Attributes:
        memory: at the peak.
        parameters: of the trained network.
        trained: shapes of the weights that are trained.
        flops: operations for one image, by what it was counted as: a name of `bench.training.ledger.COUNTS`.
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
        """The same with another optimizer, which changes nothing but what is remembered."""
        memory = dataclasses.replace(self.memory, moments=sum(map(OPTIMIZERS[name].state, self.trained)))
        return dataclasses.replace(self, memory=memory)


def dry_run(
    model: ModelFamily,
    texts: Mapping[str, Sequence[int]],
    stage: Tracer,
    algorithm: Algorithm,
    settings: TrainingSettings,
    data: PreferenceData,
) -> DryRun:
    """One micro-batch, beside the gradients of an earlier one where a batch has several.

    The optimizer is not run, but what it remembers counts: from the second step on it lives beside everything else.

    Args:
        model: on the meta device; its network is changed.
        texts: shape of each embedding of a caption, without a batch axis.
        data: prepared by the algorithm.
    """
    micro = min(settings.global_batch_size, settings.micro_batch_size)
    few = settings.model_copy(update={"global_batch_size": micro, "compile": False})
    encoded = DummyEncoding(data, model, model.latent_shape(model.resolution, model.resolution), texts)
    accelerator = Accelerator(cpu=True)
    policy = RehearsedPolicy(model, few, stage, with_reference=Need.REFERENCE in algorithm.needs)
    trained = [parameter for _, parameter in policy.parameters()]
    with stage.meter:
        algorithm.begin(policy)
        if settings.global_batch_size > micro:
            stage.give_gradients(trained)
        # an optimizer of nothing, which leaves these gradients where they are
        optimizer = torch.optim.SGD([torch.zeros(1)])
        batches = StepBatches(data, encoded, few, 0, 0, accelerator)
        accumulate(Trainer(algorithm, few, policy, optimizer, accelerator), batches, 0)
        algorithm.end_step(0, policy)
    return DryRun(
        memory=policy.memory_parts(stage.meter.peak),
        parameters=sum(parameter.numel() for parameter in policy.network.parameters()),
        trained=[parameter.shape for parameter in trained],
        flops={name: stage.flops[name] / max(1, getattr(policy.ledger, name)) for name in COUNTS},
    ).with_optimizer(settings.optimizer)


class RehearsedPolicy(TracedPolicy):
    """A policy whose networks have no values and predict 0."""

    def __init__(self, model: ModelFamily, settings: TrainingSettings, stage: Tracer, *, with_reference: bool) -> None:
        super().__init__(model, settings, Ledger(), with_reference=with_reference)
        self._stage, self._anchor = stage, torch.zeros((), requires_grad=True)
        stage.place(self.network, *([self._reference] if self._reference else []))

    def memory_parts(self, peak: int) -> Memory:
        """A peak of memory by part, with no optimizer."""
        parameters = [parameter for _, parameter in self.parameters()]
        known = {
            "weights": tensor_bytes(network_tensors(self.network)),
            "reference": tensor_bytes(network_tensors(self._reference)) if self._reference else 0,
            "gradients": tensor_bytes(each.grad for each in parameters if each.grad is not None),
            "snapshots": tensor_bytes(value for weights in self.snapshots.values() for value in weights.values()),
        }
        return Memory(**known, moments=0, activations=peak - sum(known.values()))

    def run_network(self, network: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        run = functools.partial(super().run_network, network, latents, timesteps, condition)
        if torch.is_grad_enabled():
            return self._stage.graph(self.asked, "policy_backwards", run, self._anchor)
        return torch.zeros(latents.shape, dtype=self._stage.once(self.asked, len(latents), run))
