"""Fitting a reward model: a scorer's head, or all of its weights, to preference pairs by pairwise logistic regression.

The probability that image 0 is preferred is modelled as the logistic function of the difference of the two scores (Bradley and
Terry 1952), as reward models of language models and PickScore's are fitted.  A factor on the score is fitted too, since
the raw scores of scorers have different units.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.core import termination
from bench.core.chunks import batch_slices
from bench.core.code import code_digests
from bench.core.errors import UserError
from bench.core.files import replace_file, write_json
from bench.core.progress import Progress, say
from bench.core.randomness import batch_rows
from bench.core.values import differing, digest
from bench.data.preferences import PreferenceData
from bench.records.config import DataIdentity
from bench.records.reward_models import RECORD, WEIGHTS, Accuracy, FitSettings, RewardModelRecord, read_reward_model
from bench.scoring.metric import FittableMetric, weights_digest
from bench.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from bench.training.distributed.strategy import Replicated
from bench.training.held_out import spread_captions
from bench.training.ledger import Ledger

MICRO = 8
"""Pairs whose gradient is computed at once."""
HELD_OUT = 10
"""One in so many captions is held out."""
FEWEST_CAPTIONS = 20
"""With fewer, the held-out pairs would say nothing."""
SCALED_BY = 256
"""Pairs from whose score differences the first factor is computed."""
CHECKPOINT_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What is fitted, and to what.

    Attributes:
        scorer: registered name of the metric.
        checkpoint: its checkpoint; None for the published one.
        settings: how.
        data: the pairs.
        folder: where the reward model is written.
    """

    scorer: str
    checkpoint: str | None
    settings: FitSettings
    data: PreferenceData
    folder: Path


def pairwise_loss(difference: Tensor, preference: Tensor) -> Tensor:
    """``-p log s(d) - (1 - p) log s(-d)``, s the logistic function, (N,).

    Args:
        difference: d, score of image 0 minus score of image 1, (N,).
        preference: p, probability that image 0 is preferred, (N,).
    """
    return nn.functional.binary_cross_entropy_with_logits(difference, preference, reduction="none")


def agreement(difference: Tensor, preference: Tensor) -> float:
    """Share of pairs whose preferred image has the higher score; equal scores and ties count one half."""
    return (0.5 + 0.5 * difference.sign() * (preference - 0.5).sign()).double().mean().item()


def split_rows(captions: Sequence[str]) -> tuple[list[int], list[int]]:
    """Rows to fit and held-out rows, which share no caption.

    Raises:
        UserError: there are too few captions.
    """
    different = len(set(captions))
    if different < FEWEST_CAPTIONS:
        raise UserError(
            f"the pairs have {different} different captions, and a reward model needs at least {FEWEST_CAPTIONS}: one in "
            f"{HELD_OUT} is held out; give more pairs"
        )
    out = set(spread_captions(captions, different // HELD_OUT))
    rows: tuple[list[int], list[int]] = ([], [])
    for row, caption in enumerate(captions):
        rows[caption in out].append(row)
    return rows


class Fit:
    """A scorer whose weights are being fitted.

    Args:
        scorer: the scorer; its weights are changed in place.
        request: what is fitted.

    Attributes:
        parameters: what is fitted, by name.
        scale: factor on the score, a fitted scalar; float32, ().
    """

    def __init__(self, scorer: FittableMetric, request: Request) -> None:
        self._scorer, self._request, self._data = scorer, request, request.data
        whole = request.settings.part == "whole"
        self.parameters = [
            (name, parameter)
            for name, parameter in scorer.network.named_parameters()
            if whole or name.startswith(scorer.head_parameters)
        ]
        for _, parameter in self.parameters:
            parameter.requires_grad_(True)
        device = self.parameters[0][1].device
        self._log_scale = nn.Parameter(torch.zeros((), device=device))
        self._preference = torch.from_numpy(self._data.preference_0).to(device, torch.float32)

    @property
    def scale(self) -> Tensor:
        return self._log_scale.exp()

    @property
    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters and the logarithm of the scale."""
        return [*self.parameters, ("log_scale", self._log_scale)]

    def differences(self, rows: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Differences of raw scores, image 0 minus image 1, and preferences of some pairs, `MICRO` at a time."""
        for piece in batch_slices(len(rows), MICRO):
            chosen = list(rows[piece])
            images = [self._data.image(row, side) for side in (0, 1) for row in chosen]
            captions = [self._data.captions[row] for row in chosen] * 2
            first, second = self._scorer.rate(self._scorer.inputs(images), captions).chunk(2)
            yield first - second, self._preference[chosen]

    @torch.no_grad()
    def start(self, rows: Sequence[int]) -> None:
        """Set the scale so that score differences of some pairs have deviation 1.

        Raises:
            UserError: all are the same.
        """
        found = torch.cat([difference for difference, _ in self.differences(rows[:SCALED_BY])])
        spread = found.std(correction=0)
        if not spread > 0:
            raise UserError(f"{self._request.scorer} scores both images of every pair alike; choose another scorer")
        self._log_scale.copy_(-spread.log())

    @torch.no_grad()
    def accuracy(self, rows: Sequence[int]) -> float:
        """`agreement` on some pairs."""
        found = list(self.differences(rows))
        return agreement(torch.cat([each for each, _ in found]), torch.cat([each for _, each in found]))

    def accumulate(self, rows: Sequence[int]) -> float:
        """Add the gradients of the mean loss of some pairs; returns the loss.

        Raises:
            UserError: it is not finite.
        """
        total = 0.0
        for difference, preference in self.differences(rows):
            loss = pairwise_loss(self.scale * difference, preference).sum() / len(rows)
            if not loss.isfinite():
                raise UserError("the loss of the fit is not finite; give a lower --learning-rate and another --output")
            loss.backward()
            total += loss.item()
        return total


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
    identity = DataIdentity(digest=data.digest, labels=data.labels_digest, pairs=len(data))
    base = digest(scorer.identity())
    wanted = {"scorer": request.scorer, "base": base, "settings": request.settings, "data": identity}
    if (there := read_reward_model(folder)) is not None:
        _refuse_other(there, wanted, folder)
        weights = folder / WEIGHTS
        if weights.is_file() and weights_digest(weights) == there.weights:
            return there
    fitted_rows, held_out = split_rows(data.captions)
    fit = Fit(scorer, request)
    before = fit.accuracy(held_out)
    _train(fit, fitted_rows, request, digest({name: _plain(value) for name, value in wanted.items()}))
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in fit.parameters}
    replace_file(folder / WEIGHTS, lambda partial: save_file(tensors, partial))
    record = RewardModelRecord(
        scorer=request.scorer,
        checkpoint=request.checkpoint,
        base=base,
        settings=request.settings,
        data=identity,
        source=data.report.source,
        judges=data.judges,
        code=code_digests([type(scorer)], (__name__,)),
        scale=fit.scale.item(),
        held_out=Accuracy(pairs=len(held_out), before=before, after=fit.accuracy(held_out)),
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
    else:
        fit.start(rows)
    saved = time.monotonic()

    def save() -> None:
        save_checkpoint(folder, step, {name: value.cpu().contiguous() for name, value in state.tensors()}, ledger, run)

    with termination.deferred(), Progress("fitting", total=settings.steps, done=step) as progress:
        while step < settings.steps:
            optimizer.zero_grad(set_to_none=True)
            chosen = batch_rows(len(rows), settings.batch, settings.seed, step)
            loss = fit.accumulate([rows[place] for place in chosen])
            optimizer.step()
            step += 1
            progress.reach(step, loss=loss)
            if termination.requested() or time.monotonic() - saved >= CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()
            if termination.requested():
                raise termination.TerminatedError


def _checkpoints(folder: Path) -> Path:
    return folder / "checkpoints"


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, FitSettings | DataIdentity) else value


def _refuse_other(there: RewardModelRecord, wanted: dict[str, object], folder: Path) -> None:
    one, two = ({name: _plain(value) for name, value in each.items()} for each in (there.made_by(), wanted))
    if fields := differing(one, two):
        raise UserError(
            f"{folder} holds a reward model that differs in {', '.join(fields)}; choose another --output for the new one"
        )
