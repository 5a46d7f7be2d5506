"""One step of the optimizer on one global batch: gradients, diagnostics, checks, update."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from bench.training.algorithm import Algorithm, StepOutput
from bench.training.batches import Batches
from bench.training.diagnostics import DivergedError, check_losses, diagnose
from bench.training.optimizers import OPTIMIZERS
from bench.training.policy import Policy
from bench.training.schedule import rate_at
from bench.training.settings import TrainingSettings
from bench.training.step_gradients import StepGradients
from bench.training.stopping import stoppable


@dataclasses.dataclass(frozen=True, slots=True)
class Trainer:
    """What every step of a run uses.

    Attributes:
        algorithm: the objective.
        settings: how the run trains.
        policy: the networks.
        optimizer: the optimizer of the policy's trainable parameters.
        accelerator: the processes.
    """

    algorithm: Algorithm
    settings: TrainingSettings
    policy: Policy
    optimizer: Optimizer
    accelerator: Accelerator


def build_optimizer(parameters: Sequence[tuple[str, nn.Parameter]], settings: TrainingSettings) -> Optimizer:
    """The optimizer of named parameters."""
    tensors = [parameter for _, parameter in parameters]
    return OPTIMIZERS[settings.optimizer].build(tensors, settings.learning_rate, settings.weight_decay)


def training_step(trainer: Trainer, batches: Batches, step: int) -> dict[str, Any]:
    """Run one optimizer step, and return what is recorded about it.

    Args:
        trainer: what the step uses.
        batches: this process's share of the global batch.
        step: the step's number, 0-based; it decides the learning rate.

    Raises:
        DivergedError: a loss or a gradient is not finite (raised before the update, so the weights stay good), or the first
            loss is not what identical policy and reference must produce.
        TerminatedError: SIGTERM or Ctrl-C arrived before the update; no weights have changed.
    """
    policy, settings = trainer.policy, trainer.settings

    # Gradients of the global batch, one micro-batch after another.
    tensors = [parameter for _, parameter in policy.parameters()]
    by_step = StepGradients(tensors) if settings.gradients_by_step else None
    outputs = accumulate(trainer, batches, step, by_step)
    norms: dict[str, Any] = {}
    if by_step is None:
        policy.strategy.sum_gradients(tensors)
    else:
        norms["gradient_norm_by_step"] = by_step.sum(policy.strategy)

    # Diagnostics of the global batch, and the two checks that must pass before the update.
    times = policy.process.train_timesteps
    record = diagnose(outputs, batches.size, times, trainer.accelerator)
    batches.check(trainer.algorithm, record)
    norm = policy.strategy.gather_full(torch.nn.utils.clip_grad_norm_(tensors, settings.max_grad_norm)).item()
    if not math.isfinite(norm):
        raise DivergedError(f"the gradient is not finite at step {step}; lower the learning rate or raise beta")

    # The update.
    learning_rate = rate_at(settings, step)
    for group in trainer.optimizer.param_groups:
        group["lr"] = learning_rate
    trainer.optimizer.step()
    trainer.algorithm.end_step(step, policy)
    return record | {**batches.record, "gradient_norm": norm, **norms, "learning_rate": learning_rate}


def accumulate(trainer: Trainer, batches: Batches, step: int, by_step: StepGradients | None = None) -> list[StepOutput]:
    """Compute gradients over this process's share of the global batch; returns the detached outputs of its micro-batches.

    The gradients are in the parameters, or in ``by_step`` if it is given.

    Every loss is divided by the size of the global batch before its backward, so the sum does not depend on how the batch is cut.

    Raises:
        DivergedError: a loss is not finite.
        TerminatedError: any process received SIGTERM or Ctrl-C.
    """
    policy = trainer.policy
    trainer.optimizer.zero_grad(set_to_none=True)
    stats = gather_batch_stats(trainer, batches)
    outputs = []
    for batch in stoppable(trainer.accelerator, batches, batches.rounds):
        output = trainer.algorithm.step(dataclasses.replace(batch, global_batch_stats=stats), policy)
        check_losses(output, batch.row_ids, step)
        policy.strategy.check_ranks_in_sync("backward")
        loss = output.losses.sum() / batches.size
        if by_step is None:
            loss.backward()
        else:
            by_step.backward(loss, batch.sampling_step)
        outputs.append(dataclasses.replace(output, losses=output.losses.detach()))
    return outputs


@torch.no_grad()
def gather_batch_stats(trainer: Trainer, batches: Batches) -> Tensor | None:
    """`Algorithm.global_batch_stats` for every pair of the global batch, in its order: (global_batch_size, ...), float32.

    None for an algorithm that does not need them.

    Raises:
        TerminatedError: any process received SIGTERM or Ctrl-C.
    """
    if not trainer.algorithm.needs_batch_stats:
        return None
    gathered: Tensor | None = None
    for batch in stoppable(trainer.accelerator, batches, batches.rounds):
        found = trainer.algorithm.global_batch_stats(batch, trainer.policy)
        if found is None:
            return None
        if gathered is None:
            gathered = found.new_zeros(batches.size, *found.shape[1:])
        gathered[list(batch.batch_positions)] = found
    if gathered is None:
        raise ValueError("a process has no pairs of the batch")
    # Each process has filled its own rows and left the others 0, so the sum holds all rows.
    summed: Tensor = trainer.accelerator.reduce(gathered, reduction="sum")
    return summed
