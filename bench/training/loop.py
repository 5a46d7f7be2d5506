"""The training loop: one for every algorithm, model and number of processes."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from bench.core.files import append_lines, keep_lines, replace_folder, write_json
from bench.core.progress import Progress
from bench.data.cache import EncodedData
from bench.data.preferences import PreferenceData
from bench.models.family import ModelFamily
from bench.records.runs import RunFolder
from bench.training.algorithm import Algorithm, Need, StepOutput
from bench.training.batch import PairBatch
from bench.training.batches import micro_batches
from bench.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from bench.training.diagnostics import DivergedError, check_losses, check_start, diagnose
from bench.training.distributed.launch import choose_strategy
from bench.training.ledger import COUNTS, Ledger, refuse_spent_budget
from bench.training.optimizers import OPTIMIZERS
from bench.training.policy import Policy
from bench.training.schedule import rate_at
from bench.training.settings import TrainingSettings

SAVING_SHARE = 0.05
"""Most of the time that checkpoints may take, unless one is wanted at every step."""


def train(
    run: RunFolder,
    algorithm: Algorithm,
    settings: TrainingSettings,
    model: ModelFamily,
    data: PreferenceData,
    encoded: EncodedData,
    seed: int,
    accelerator: Accelerator,
    prepared_forwards: int = 0,
) -> None:
    """Train ``model`` in place of the run's folder, from its newest checkpoint or from the start.

    A batch is cut into micro-batches and spread over processes; every loss is divided by the global batch before backward, so
    that any way of cutting gives the same update.  Draws are addressed by (seed, step, pair): a resumed run equals one that
    was never stopped.

    Args:
        prepared_forwards: what preparing the data cost in forwards of the base model; they count as the reference's.

    Raises:
        DivergedError: a loss or a gradient is not finite (raised before the step, so that the weights stay good), or the first
            loss is not what identical policy and reference must give.
        UserError: the processes cannot share a batch, or preparing the data has taken the whole budget.
    """
    strategy = choose_strategy(accelerator)
    strategy.check(settings)
    refuse_spent_budget(settings.budget, prepared_forwards)
    ledger = Ledger()
    ledger.reset_peak_memory(accelerator.device)
    policy = Policy(model, settings, ledger, with_reference=Need.REFERENCE in algorithm.needs, strategy=strategy)
    parameters = policy.parameters()
    optimizer = build_optimizer(parameters, settings)
    state = TrainingState(parameters, optimizer, policy.snapshots, strategy)

    start = load_checkpoint(run.checkpoints, state, ledger)
    if start == 0:
        ledger.reference_forwards = prepared_forwards
        algorithm.begin(policy)
    if accelerator.is_main_process:
        keep_lines(run.train_log, [line for line in run.steps() if line["step"] < start])
    else:
        ledger.reset_counts()  # the main process goes on with the sums
    accelerator.wait_for_everyone()

    def save(step: int) -> None:
        total = _over_processes(ledger, accelerator)
        tensors = {}
        for name, value in state.tensors():
            if accelerator.is_main_process:
                tensors[name] = value.cpu().contiguous()
        if accelerator.is_main_process:
            save_checkpoint(run.checkpoints, step, tensors, total)
        accelerator.wait_for_everyone()

    def spent(step: int) -> float:
        if settings.budget is None:
            return step
        return _over_processes(ledger, accelerator).total(settings.budget.unit)

    saved, pause, step = time.monotonic(), settings.checkpoint_seconds, start
    limit = settings.steps if settings.budget is None else settings.budget.amount
    with Progress(f"training {run.folder.parent.parent.name}", total=round(limit), done=round(spent(step))) as progress:
        while _everyone_agrees(spent(step) < limit, accelerator):
            began = time.monotonic()

            batches = functools.partial(micro_batches, data, encoded, settings, seed, step, accelerator)
            record = training_step(algorithm, settings, policy, optimizer, batches, step, accelerator)

            # The record.
            ledger.pairs += settings.global_batch_size
            ledger.seconds += (time.monotonic() - began) * accelerator.num_processes
            ledger.record_peak_memory(accelerator.device)
            record |= {"pairs": ledger.pairs, "seconds": ledger.seconds}
            if accelerator.is_main_process:
                append_lines(run.train_log, [json.dumps({"step": step, **record})])
            step += 1
            done = spent(step)
            progress.reach(round(done), loss=record["loss"])
            began = time.monotonic()
            if _everyone_agrees(began - saved >= pause or done >= limit, accelerator):
                save(step)
                saved = time.monotonic()
                pause = settings.checkpoint_seconds and max(settings.checkpoint_seconds, (saved - began) / SAVING_SHARE)

    total = _over_processes(ledger, accelerator)
    total.flops = round(total.total("forwards")) * policy.forward_flops(encoded.condition([""]))
    trained = policy.whole_network()
    if accelerator.is_main_process:
        replace_folder(run.weights, lambda partial: model.save_trained(trained, partial))
        write_json(run.folder / "ledger.json", dataclasses.asdict(total))
        run.finish()
    accelerator.wait_for_everyone()


def build_optimizer(parameters: Sequence[tuple[str, torch.nn.Parameter]], settings: TrainingSettings) -> Optimizer:
    """The optimizer of named parameters."""
    tensors = [parameter for _, parameter in parameters]
    return OPTIMIZERS[settings.optimizer].build(tensors, settings.learning_rate, settings.weight_decay)


def training_step(
    algorithm: Algorithm,
    settings: TrainingSettings,
    policy: Policy,
    optimizer: Optimizer,
    batches: Callable[[], Iterable[PairBatch]],
    step: int,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """One step of the optimizer on one global batch, and what is recorded of it.

    Args:
        batches: gives this process's share of the global batch, as often as it is asked.

    Raises:
        DivergedError: see `train`.
    """
    # Gradients of the global batch, one micro-batch after the other.
    outputs = accumulate(algorithm, settings, policy, optimizer, batches, step, accelerator)
    tensors = [parameter for _, parameter in policy.parameters()]
    policy.strategy.sum_gradients(tensors)

    # Diagnostics of the global batch, and the two checks that come before the step.
    record = diagnose(outputs, settings.global_batch_size, policy.process.train_timesteps, accelerator)
    if step == 0:
        check_start(algorithm, settings, record)
    norm = policy.strategy.gather_full(torch.nn.utils.clip_grad_norm_(tensors, settings.max_grad_norm)).item()
    if not math.isfinite(norm):
        raise DivergedError(f"the gradient is not finite at step {step}; lower the learning rate or raise beta")

    # The step.
    rate = rate_at(settings, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    algorithm.end_step(step, policy)
    return record | {"gradient_norm": norm, "learning_rate": rate}


def accumulate(
    algorithm: Algorithm,
    settings: TrainingSettings,
    policy: Policy,
    optimizer: Optimizer,
    batches: Callable[[], Iterable[PairBatch]],
    step: int,
    accelerator: Accelerator,
) -> list[StepOutput]:
    """Gradients of this process's share of the global batch, and the detached outputs of its micro-batches."""
    optimizer.zero_grad(set_to_none=True)
    outputs = []
    stats = gather_batch_stats(algorithm, policy, batches(), settings.global_batch_size, accelerator)
    for batch in batches():
        output = algorithm.step(dataclasses.replace(batch, global_batch_stats=stats), policy)
        check_losses(output, batch, step)
        policy.strategy.check_ranks_in_sync("backward")
        (output.losses.sum() / settings.global_batch_size).backward()
        outputs.append(dataclasses.replace(output, losses=output.losses.detach()))
    return outputs


@torch.no_grad()
def gather_batch_stats(
    algorithm: Algorithm, policy: Policy, batches: Iterable[PairBatch], count: int, accelerator: Accelerator
) -> Tensor | None:
    """What the algorithm finds in every pair of the global batch, (count, ...) in its order; None when it does not look."""
    if not algorithm.needs_batch_stats:
        return None
    gathered: Tensor | None = None
    for batch in batches:
        found = algorithm.global_batch_stats(batch, policy)
        if found is None:
            return None
        if gathered is None:
            gathered = found.new_zeros(count, *found.shape[1:])
        gathered[list(batch.batch_positions)] = found
    if gathered is None:
        raise ValueError("a process has no pairs of the batch")
    summed: Tensor = accelerator.reduce(gathered, reduction="sum")
    return summed


def _over_processes(ledger: Ledger, accelerator: Accelerator) -> Ledger:
    counts = torch.tensor([getattr(ledger, name) for name in COUNTS], dtype=torch.int64, device=accelerator.device)
    summed = accelerator.reduce(counts, reduction="sum").tolist()
    return dataclasses.replace(ledger, **dict(zip(COUNTS, summed, strict=True)))


def _everyone_agrees(wish: bool, accelerator: Accelerator) -> bool:
    """The main process decides for all, since clocks differ and saving is collective."""
    flag = torch.tensor(float(wish and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(flag, reduction="sum").item())
