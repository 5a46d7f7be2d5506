"""Reward models: a scorer's head, or all of its weights, fitted to preference pairs, with what was held out, kept in a folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bench.core import termination
from bench.core.code import code_digests
from bench.core.errors import UserError
from bench.core.files import replace_file, write_array, write_json
from bench.core.progress import Progress, say
from bench.core.randomness import batch_rows
from bench.core.values import differing, digest
from bench.data.preferences import PreferenceData
from bench.records.config import DataIdentity
from bench.records.reward_models import RECORD, WEIGHTS, Accuracy, FitSettings, RewardModelRecord, read_reward_model
from bench.records.runs import CHECKPOINTS
from bench.scoring.metric import FittableMetric, weights_digest
from bench.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from bench.training.distributed.strategy import Replicated
from bench.training.ledger import Ledger
from bench.training.reward_fit import Fit, Request

CHECKPOINT_SECONDS = 60.0
HELD_OUT_PAIRS = "held_out.npy"
"""In a reward model's folder: `agreement` on each held-out pair, float64, (H,)."""


def fit_reward_model(scorer: FittableMetric, request: Request) -> RewardModelRecord:
    """Fit a reward model, or return the one that is there; an interrupted fit continues, to the same last bit.

    Args:
        scorer: the scorer to start from, loaded from the request's checkpoint; its weights are changed in place.
        request: what is fitted.

    Raises:
        UserError: the data are no labelled pairs or too few, or the folder holds another reward model.
        TerminatedError: SIGTERM or Ctrl-C arrived; the fit so far is saved.
    """
    data, folder = request.data, request.folder
    if not data.labelled or data.width != 2:
        raise UserError(f"{data.report.source} has no labelled pairs, which a reward model is fitted to")
    base, fit = digest(scorer.identity()), Fit(scorer, request)
    start = None if request.start is None else fit.continue_from(request.start)
    wanted: dict[str, Any] = {
        "scorer": request.scorer,
        "base": base,
        "settings": request.settings,
        "data": _identity(data),
        "start": start,
        "opponents": None if request.opponents is None else _identity(request.opponents.pairs),
    }
    if (there := read_reward_model(folder)) is not None:
        _refuse_other(there, wanted, folder)
        weights = folder / WEIGHTS
        if weights.is_file() and weights_digest(weights) == there.weights:
            return there
    fitted_rows, held_out = request.split
    before = fit.agreements(held_out)
    _train(fit, fitted_rows, request, digest({name: _plain(value) for name, value in wanted.items()}))
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in fit.parameters}
    replace_file(folder / WEIGHTS, lambda partial: save_file(tensors, partial))
    after = fit.agreements(held_out)
    write_array(folder / HELD_OUT_PAIRS, after)
    record = RewardModelRecord(
        **wanted,
        checkpoint=request.checkpoint,
        source=data.report.source,
        judges=data.judges,
        code=code_digests([type(scorer)], (__name__,)),
        scale=fit.scale.item(),
        held_out=Accuracy(pairs=len(held_out), before=before.mean(), after=after.mean()),
        weights=weights_digest(folder / WEIGHTS),
    )
    write_json(folder / RECORD, record.model_dump(mode="json"))
    shutil.rmtree(_checkpoints(folder), ignore_errors=True)
    return record


def _train(fit: Fit, rows: Sequence[int], request: Request, run: str) -> None:
    """Take the optimizer steps that are left."""
    settings, ledger = request.settings, Ledger()
    folder = _checkpoints(request.folder)
    optimizer = torch.optim.AdamW(
        [parameter for _, parameter in fit.trained], lr=settings.learning_rate, weight_decay=0.0
    )
    state = TrainingState(fit.trained, optimizer, {}, Replicated())
    step = load_checkpoint(folder, state, ledger, run)
    if step:
        say(f"resuming the fit at step {step} of {settings.steps}")
    elif request.start is None:
        fit.start(rows)
    saved = time.monotonic()

    def save() -> None:
        save_checkpoint(folder, step, {name: value.cpu().contiguous() for name, value in state.tensors()}, ledger, run)

    with termination.deferred(), Progress("fitting", total=settings.steps, done=step) as progress:
        while step < settings.steps:
            optimizer.zero_grad(set_to_none=True)
            chosen = batch_rows(len(rows), settings.batch, settings.seed, step)
            loss = fit.accumulate([rows[place] for place in chosen], request.against(step))
            optimizer.step()
            step += 1
            progress.reach(step, loss=loss)
            if termination.requested() or time.monotonic() - saved >= CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()
            if termination.requested():
                raise termination.TerminatedError


def _identity(data: PreferenceData) -> DataIdentity:
    return DataIdentity(digest=data.digest, labels=data.labels_digest, pairs=len(data))


def _checkpoints(folder: Path) -> Path:
    return folder / CHECKPOINTS


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, FitSettings | DataIdentity) else value


def _refuse_other(there: RewardModelRecord, wanted: dict[str, Any], folder: Path) -> None:
    one, two = ({name: _plain(value) for name, value in each.items()} for each in (there.made_by(), wanted))
    if fields := differing(one, two):
        raise UserError(
            f"{folder} holds a reward model that differs in {', '.join(fields)}; choose another --output for the new one"
        )
