"""What is recorded about a training step, and the checks that must pass before the weights change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.training.algorithm import Algorithm, StepOutput
from bench.training.settings import TrainingSettings

if TYPE_CHECKING:  # a listing imports the interfaces of online algorithms, and with them this module
    from accelerate import Accelerator

TIME_BUCKETS = 10
RATIO_ERROR = "ratio_error"
"""What algorithms that replay sampling steps call the absolute log ratio in their logs."""
LARGEST_RATIO_ERROR = "ratio_error_largest"
MOST_FLOORS = 3.0
"""How many times the noise floor of replay, which few samples measure, the largest of all ratio errors may be."""


class DivergedError(UserError):
    """A loss or gradient is not finite, or the first step does not start from identical policy and reference."""


def diagnose(outputs: Sequence[StepOutput], batch: int, times: int, accelerator: Accelerator) -> dict[str, Any]:
    """Means of the loss and of every log over the global batch, overall and by timestep bucket; of ratio errors also the largest."""
    columns = {"loss": torch.cat([output.losses.detach() for output in outputs])}
    for name in outputs[0].logs:
        columns[name] = torch.cat([output.logs[name] for output in outputs])
    bucket = torch.cat([output.timesteps for output in outputs]) * TIME_BUCKETS // times
    hits = torch.nn.functional.one_hot(bucket.long(), TIME_BUCKETS).double()
    sums = torch.stack([*(column.double() @ hits for column in columns.values()), hits.sum(0)])
    sums = accelerator.reduce(sums, reduction="sum")
    counts = sums[-1]
    means: dict[str, Any] = {name: (row.sum() / batch).item() for name, row in zip(columns, sums, strict=False)}
    if RATIO_ERROR in columns:
        means[LARGEST_RATIO_ERROR] = accelerator.gather(columns[RATIO_ERROR].max().reshape(1)).max().item()
    return means | {"by_timestep": {name: _means(row, counts) for name, row in zip(columns, sums, strict=False)}}


def _means(sums: Tensor, counts: Tensor) -> list[float | None]:
    return [total / count if count else None for total, count in zip(sums.tolist(), counts.tolist(), strict=True)]


def check_losses(output: StepOutput, row_ids: Sequence[int], step: int) -> None:
    """Refuse losses that are not one per pair (`ValueError`) or not finite (`DivergedError`, with the first such pair)."""
    if output.losses.shape != (len(row_ids),):
        raise ValueError(
            f"an algorithm must return one loss per pair, not a tensor of shape {tuple(output.losses.shape)}"
        )
    bad = (~torch.isfinite(output.losses)).nonzero().flatten().tolist()
    if bad:
        pair, t = row_ids[bad[0]], output.timesteps[bad[0]].item()
        advice = (
            "the last checkpoint is good: lower the learning rate or raise beta"
            if step
            else "no weights have changed yet: check this pair and the weights that training starts from"
        )
        raise DivergedError(
            f"the loss is {output.losses[bad[0]].item()} at step {step} (pair {pair}, t = {t}); {advice}"
        )


def check_start(algorithm: Algorithm, settings: TrainingSettings, record: Mapping[str, Any]) -> None:
    """Raise a `DivergedError` when the first step is not what identical policy and reference must produce."""
    margin = record.get("margin")
    if margin:
        why = (
            "torch.compile rounds the two differently: use compile=false"
            if settings.compile
            else "policy and reference get different inputs"
        )
        raise DivergedError(
            f"before any update the policy must equal the reference (margin 0), but the margin is {margin}: {why}"
        )
    expected = algorithm.initial_loss
    if expected is not None and not math.isclose(record["loss"], expected, rel_tol=1e-5):
        raise DivergedError(
            f"before any update, with policy and reference identical, the loss must be {expected}, but it is "
            f"{record['loss']}"
        )


def check_ratio(record: Mapping[str, Any], floor: float) -> None:
    """Before an update from a rollout, the importance ratio of the weights that sampled is 1.

    Args:
        record: the step's diagnostics, with the absolute log ratio.
        floor: the noise floor of replay, which is the tolerance; for the largest error, `MOST_FLOORS` times that.

    Raises:
        DivergedError: it is not.
        ValueError: the algorithm trains sampling steps and does not log the absolute log ratio.
    """
    if RATIO_ERROR not in record:
        raise ValueError(f"an algorithm that trains sampling steps must log the absolute log ratio as {RATIO_ERROR!r}")
    mean, largest = record[RATIO_ERROR], record[LARGEST_RATIO_ERROR]
    if mean > floor or largest > MOST_FLOORS * floor:
        raise DivergedError(
            f"before any update from a rollout the importance ratio must be 1, but |log ratio| is {mean:.3g} on average and {largest:.3g} "
            f"at most, above the replay's noise floor of {floor:.3g}: replay and rollout differ in timesteps, guidance or precision"
        )
