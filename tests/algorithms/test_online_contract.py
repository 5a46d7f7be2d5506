"""What every algorithm that samples while it trains promises, on small models that predict noise, v and a flow.

The algorithms are those of the registry: a new one is looked at without an edit here.  Each takes one step of the harness by plain
gradient descent, of which the direction, the cut, the copies of the weights and the cost are looked at.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from workshop import Brightness, Workshop

from bench import (
    ForwardAlgorithm,
    GradientBatch,
    Need,
    OnlineAlgorithm,
    Policy,
    RewardGradientAlgorithm,
    RolloutBatch,
    SamplingAlgorithm,
    StepPairAlgorithm,
    StepPairBatch,
    StepwiseAlgorithm,
    TrainingSettings,
    sample_errors,
)
from bench.core.progress import without_progress
from bench.core.registry import is_ours
from bench.experiments.contracts.small_models import PROCESSES
from bench.rollouts.rewards import Rewards
from bench.training.algorithm import ALGORITHMS
from bench.training.ledger import Ledger, uncounted
from bench.training.loop import Job, batch_source
from bench.training.step import Trainer, training_step

NAMES = [name for name in ALGORITHMS if is_ours(ALGORITHMS.point(name)) and issubclass(ALGORITHMS.get(name), SamplingAlgorithm)]
SAMPLES, STEPS, TRAINED = 8, 4, 2
LENGTH = 1e-2
"""Of every update."""
SMALL: dict[str, Any] = {
    "rewards": ("clip",), "sampling_steps": STEPS, "group": 4, "trained": TRAINED, "within": 3, "first": 2, "threshold": 0.0, "ceiling": 255.0,
}  # fmt: skip
"""Fields of the algorithms that have them."""
OF_ONE = {"refl": {"first": 3}}


def small(name: str, scale: float = 1.0, **changes: Any) -> SamplingAlgorithm:
    kind: Any = ALGORITHMS.get(name)
    fields = {field: value for field, value in SMALL.items() if field in kind.model_fields}
    if (clip := kind.model_fields.get("clip")) is not None:
        fields["clip"] = max(clip.default, 1e-3)  # above the noise of replay
    fields["guidance_scale"] = max(scale, 3.0) if Need.GUIDANCE in kind.needs else scale
    return kind(**{**fields, **OF_ONE.get(name, {}), **changes})


class Strides(torch.optim.SGD):
    """Plain gradient descent by updates of one length, since gradients of different algorithms differ by orders of magnitude."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            group["lr"] = LENGTH / torch.nn.utils.get_total_norm(gradients).item()
        super().step()


class Kept:
    """The batches of a step, which also keep what was iterated over: step pairs are sampled anew each time."""

    def __init__(self, batches: Any) -> None:
        self._batches, self.seen = batches, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            self.seen.append(batch)
            yield batch


class Session:
    def __init__(self, where: Workshop, algorithm: SamplingAlgorithm, **settings: Any) -> None:
        accelerator, self.algorithm, self.ledger = Accelerator(cpu=True), algorithm, Ledger()
        sizes = {"global_batch_size": SAMPLES, "micro_batch_size": SAMPLES, "warmup_steps": 0, "max_grad_norm": 1e9}
        chosen = TrainingSettings(**{**algorithm.training_defaults, **sizes, **settings})
        model = where.model()
        self.policy = Policy(model, chosen, self.ledger, with_reference=Need.REFERENCE in algorithm.needs)
        encoded = where.encoded if algorithm.reads_pictures else where.captions_of(where.data)
        rewards = Rewards(dict.fromkeys(algorithm.trained_on, Brightness))
        self.job = Job(algorithm, chosen, model, where.data, encoded, 0, "a small model", "small", rewards=rewards)
        self.source: Any = batch_source(self.job, self.policy, accelerator)
        tensors = [parameter for _, parameter in self.policy.parameters()]
        self.trainer = Trainer(algorithm, chosen, self.policy, Strides(tensors, lr=1.0), accelerator)
        algorithm.begin(self.policy)
        self.initial = self.weights()

    def weights(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for _, parameter in self.policy.parameters()])

    def gradient(self) -> Tensor:
        return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for _, p in self.policy.parameters()])

    def put(self, weights: Tensor) -> None:
        torch.nn.utils.vector_to_parameters(weights, [parameter for _, parameter in self.policy.parameters()])

    def step(self, number: int = 0) -> tuple[dict[str, Any], list[Any]]:
        batches: Any = Kept(self.source.batches(number))
        line = training_step(self.trainer, batches, number)
        return line, batches.seen


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Workshop]]:
    with without_progress():
        yield {kind: Workshop(tmp_path_factory.mktemp(kind), model) for kind, model in PROCESSES.items()}
