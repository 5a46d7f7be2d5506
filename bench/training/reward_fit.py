"""A scorer while it is fitted to pairs: what is fitted, to what, and the loss.

The probability that image 0 is preferred is modelled as the logistic function of the difference of the two scores (Bradley and
Terry 1952), as reward models of language models and PickScore's are fitted.  A factor on the score is fitted too, since
the raw scores of scorers have different units.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.chunks import batch_slices
from bench.core.errors import UserError
from bench.core.images import open_image
from bench.core.randomness import batch_rows
from bench.core.values import digest
from bench.data.preferences import PreferenceData
from bench.records.reward_models import WEIGHTS, FitSettings, read_reward_model
from bench.scoring.fitted import fill_fitted
from bench.scoring.metric import FittableMetric
from bench.training.held_out import spread_captions

MICRO = 8
"""Pairs whose gradient is computed at once."""
TOGETHER = 8 * MICRO
"""Pairs whose files are read at once, in their order on disk: a jump to another place in a Parquet file costs more than a score."""
HELD_OUT = 10
"""One in so many captions is held out."""
FEWEST_CAPTIONS = 20
"""With fewer, the held-out pairs would say nothing."""
SCALED_BY = 256
"""Pairs from whose score differences the first factor is computed."""

Rows = tuple[Sequence[int], Sequence[int]]
"""Rows to fit and held-out rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Opponents:
    """Pairs that a reward model is fitted to beside people's; every step sees as many of them.

    Attributes:
        pairs: the pairs; what should have the higher score is image 0.
        losses: of differences of scores, image 0 minus image 1, (N,), each in the unit of a pair of people's; see `pairwise_loss`.
    """

    pairs: PreferenceData
    losses: Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What is fitted, and to what.

    Attributes:
        scorer: registered name of the metric.
        checkpoint: its checkpoint; None for the published one.
        settings: how.
        data: the pairs.
        folder: where the reward model is written.
        rows: those of the data to fit, and those held out; None for `split_rows`.
        start: folder of a finished reward model, of the same scorer and part, to start from; None for the scorer as it is.
        opponents: other pairs to fit; None for none.
    """

    scorer: str
    checkpoint: str | None
    settings: FitSettings
    data: PreferenceData
    folder: Path
    rows: Rows | None = None
    start: Path | None = None
    opponents: Opponents | None = None

    @property
    def split(self) -> Rows:
        """Rows to fit and held-out rows."""
        return split_rows(self.data.captions) if self.rows is None else self.rows

    @property
    def reward_calls(self) -> int:
        """How many images the scorer is called for, however often the fit is interrupted; repeats are counted."""
        fitted_rows, held_out = self.split
        steps = self.settings.steps * self.settings.batch * (1 if self.opponents is None else 2)
        scale = min(SCALED_BY, len(fitted_rows)) if self.start is None else 0
        return 2 * (steps + 2 * len(held_out) + scale)

    def against(self, step: int) -> list[int]:
        """Rows of the opponents of a step, in an order of their own; none without opponents."""
        if self.opponents is None:
            return []
        seed = int(digest({"opponents": self.settings.seed})[:7], 16)
        return batch_rows(len(self.opponents.pairs), self.settings.batch, seed, step)


def pairwise_loss(difference: Tensor, preference: Tensor) -> Tensor:
    """``-p log s(d) - (1 - p) log s(-d)``, s the logistic function, (N,).

    Args:
        difference: d, score of image 0 minus score of image 1, (N,).
        preference: p, probability that image 0 is preferred, (N,).
    """
    return nn.functional.binary_cross_entropy_with_logits(difference, preference, reduction="none")


def agreement(difference: Tensor, preference: Tensor) -> Tensor:
    """Of each pair, whether the preferred image has the higher score, 1 or 0; equal scores and ties are one half; float64, (N,)."""
    return (0.5 + 0.5 * difference.sign() * (preference - 0.5).sign()).double()


def split_rows(captions: Sequence[str]) -> Rows:
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
        self._device = self.parameters[0][1].device
        self._log_scale = nn.Parameter(torch.zeros((), device=self._device))

    @property
    def scale(self) -> Tensor:
        return self._log_scale.exp()

    @property
    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters and the logarithm of the scale."""
        return [*self.parameters, ("log_scale", self._log_scale)]

    def differences(self, data: PreferenceData, rows: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Differences of raw scores, image 0 minus image 1, and preferences of some pairs, `MICRO` at a time."""
        for block in batch_slices(len(rows), TOGETHER):
            encoded = {row: data.encoded[row] for row in sorted({*rows[block]})}
            for piece in batch_slices(len(rows[block]), MICRO):
                chosen = list(rows[block][piece])
                images = [open_image(encoded[row][side]).convert("RGB") for side in (0, 1) for row in chosen]
                captions = [data.captions[row] for row in chosen] * 2
                first, second = self._scorer.rate(self._scorer.inputs(images), captions).chunk(2)
                yield first - second, torch.from_numpy(data.preference_0[chosen]).to(self._device, torch.float32)

    def continue_from(self, folder: Path) -> str:
        """Set weights and scale to those of a finished reward model; returns the digest of its weights.

        Raises:
            UserError: its files are damaged.
        """
        there = read_reward_model(folder)
        if there is None:
            raise ValueError(f"{folder} holds no finished reward model")
        fill_fitted(self._scorer, folder / WEIGHTS, there.weights)
        with torch.no_grad():
            self._log_scale.fill_(math.log(there.scale))
        return there.weights

    @torch.no_grad()
    def start(self, rows: Sequence[int]) -> None:
        """Set the scale so that score differences of some pairs have deviation 1.

        Raises:
            UserError: all are the same.
        """
        found = torch.cat([difference for difference, _ in self.differences(self._data, rows[:SCALED_BY])])
        spread = found.std(correction=0)
        if not spread > 0:
            raise UserError(f"{self._request.scorer} scores both images of every pair alike; choose another scorer")
        self._log_scale.copy_(-spread.log())

    @torch.no_grad()
    def agreements(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """`agreement` on each of some pairs, float64, (N,)."""
        found = [agreement(*each).cpu() for each in self.differences(self._data, rows)]
        return np.asarray(torch.cat(found).numpy())

    def accumulate(self, rows: Sequence[int], against: Sequence[int] = ()) -> float:
        """Add the gradients of the mean loss of some pairs, and of that of some opponents; returns their sum.

        Raises:
            UserError: it is not finite.
        """
        total = 0.0
        for losses in self._losses(rows, against):
            if not losses.isfinite():
                raise UserError("the loss of the fit is not finite; give a lower --learning-rate and another --output")
            losses.backward()
            total += losses.item()
        return total

    def _losses(self, rows: Sequence[int], against: Sequence[int]) -> Iterator[Tensor]:
        """Terms of the loss, one for each piece of the batch."""
        for difference, preference in self.differences(self._data, rows):
            yield pairwise_loss(self.scale * difference, preference).sum() / len(rows)
        if (opponents := self._request.opponents) is not None:
            for difference, _ in self.differences(opponents.pairs, against):
                yield opponents.losses(self.scale * difference).sum() / len(against)
