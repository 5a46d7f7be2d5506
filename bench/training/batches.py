"""The global batch of a step, cut into micro-batches and spread over processes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.core.chunks import batch_slices
from bench.core.randomness import Draws, batch_rows
from bench.data.buckets import HorizontalFlip, PictureSize
from bench.data.preferences import PreferenceData
from bench.models.family import Posterior
from bench.models.framing import Size
from bench.training.algorithm import Algorithm
from bench.training.diagnostics import check_start
from bench.training.pair_batch import PairBatch
from bench.training.settings import TrainingSettings

if TYPE_CHECKING:  # a listing of algorithms loads this module, and needs no accelerate
    from accelerate import Accelerator


class Encoded(Protocol):
    """The part of `bench.data.cache.EncodedData` that batches need; all tensors are float32."""

    def size(self, row: int) -> Size:
        """Height and width in pixels of a row's images."""

    def posterior(self, rows: Sequence[int], mirrored: Tensor | None = None) -> Posterior:
        """Posterior of all images of rows of the same size, (B, K, C, h, w); ``mirrored`` says of which mirrored, bool, (B, K)."""

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings of captions, each (B, ...)."""

    def negative(self, count: int) -> dict[str, Tensor]:
        """Embeddings of an empty negative prompt, each (``count``, ...)."""

    def picture_condition(self, rows: Sequence[int], sides: Sequence[int], size: PictureSize) -> dict[str, Tensor]:
        """Size and crop conditioning of one image per row, each (B, ...); ``sides`` says which image."""


class Captioned(NamedTuple):
    """Captions of a micro-batch.

    Attributes:
        row_ids: row numbers of the captions in the data, B of them.
        batch_positions: their positions in the step's global batch.
        draws: random draws for these rows.
    """

    row_ids: tuple[int, ...]
    batch_positions: tuple[int, ...]
    draws: Draws


class Batches(Protocol):
    """One process's share of a step's global batch, in micro-batches; iterating it again repeats the same micro-batches.

    Attributes:
        size: how many losses the global batch has.
        rounds: the largest number of micro-batches that any process has in this step.
        record: what the log says about the batch itself, by name.
    """

    @property
    def size(self) -> int: ...
    @property
    def rounds(self) -> int: ...
    @property
    def record(self) -> Mapping[str, float]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def check(self, algorithm: Algorithm, record: Mapping[str, Any]) -> None:
        """Check the step's diagnostics before the update; raises a `DivergedError`."""


class Source(Protocol):
    """Where a run's global batches come from."""

    def batches(self, step: int) -> Batches:
        """The global batch of an optimizer step, 0-based."""


@dataclasses.dataclass(frozen=True)
class StepBatches:
    """One process's share of a step's global batch, cut into micro-batches of images of the same size.

    Each iteration rebuilds the micro-batches, with the same random draws.

    Args:
        data: the training data.
        encoded: its latents and embeddings.
        settings: batch sizes and caption dropout.
        seed: the training seed.
        step: the optimizer step, 0-based.
        accelerator: the processes that share the global batch.
        among: the rows that are trained on; None means all.
    """

    data: PreferenceData
    encoded: Encoded
    settings: TrainingSettings
    seed: int
    step: int
    accelerator: Accelerator
    among: Sequence[int] | None = None

    def __iter__(self) -> Iterator[PairBatch]:
        for captioned in self.captioned():
            yield make_batch(self, captioned)

    def captioned(self) -> Iterator[Captioned]:
        """The same micro-batches without what is known about images, which is not read."""
        return map(self.at, self._cut(self.accelerator.process_index))

    def at(self, positions: Sequence[int]) -> Captioned:
        """The captions at some positions of the global batch."""
        rows = tuple(self.rows[position] for position in positions)
        # Repeats of a row within a global batch are numbered, so that each gets different noise.
        repeats = [self.rows[:position].count(self.rows[position]) for position in positions]
        return Captioned(rows, tuple(positions), Draws(self.seed, self.step, rows, repeats))

    record: ClassVar[Mapping[str, float]] = {}

    @property
    def size(self) -> int:
        """Pairs of the global batch."""
        return self.settings.global_batch_size

    def check(self, algorithm: Algorithm, record: Mapping[str, Any]) -> None:
        """At the first step, check what identical policy and reference must produce."""
        if self.step == 0:
            check_start(algorithm, self.settings, record)

    @property
    def rounds(self) -> int:
        """The largest number of micro-batches that any process has in this step; computed without communication."""
        return max(len(self._cut(rank)) for rank in range(self.accelerator.num_processes))

    @functools.cached_property
    def rows(self) -> Sequence[int]:
        """Row numbers, in the data, of the global batch."""
        size = self.settings.global_batch_size
        if self.among is None:
            return batch_rows(len(self.data), size, self.seed, self.step)
        return [self.among[place] for place in batch_rows(len(self.among), size, self.seed, self.step)]

    def _cut(self, rank: int) -> list[Sequence[int]]:
        """Positions in the global batch of each micro-batch of one process."""
        by_size: dict[Size, list[int]] = {}
        for position in range(rank, self.settings.global_batch_size, self.accelerator.num_processes):
            by_size.setdefault(self.encoded.size(self.rows[position]), []).append(position)
        return [
            positions[piece]
            for positions in by_size.values()
            for piece in batch_slices(len(positions), self.settings.micro_batch_size)
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class PairSource:
    """Global batches of preference data; see `StepBatches` for what the fields are."""

    data: PreferenceData
    encoded: Encoded
    settings: TrainingSettings
    seed: int
    accelerator: Accelerator
    among: Sequence[int] | None = None

    def batches(self, step: int) -> StepBatches:
        """The pairs of an optimizer step."""
        return StepBatches(self.data, self.encoded, self.settings, self.seed, step, self.accelerator, self.among)


def draw_latents(step: StepBatches, rows: Sequence[int], draws: Draws) -> Tensor:
    """Latents of all images of some rows, float32 on the CPU, (B, K, C, h, w), drawn for this step if the settings say so."""
    mirrored = draw_flips(step.settings.horizontal_flip, draws, step.data.width)
    posterior = step.encoded.posterior(rows, mirrored)
    if step.settings.latents == "mean":
        return posterior.mean
    return posterior.draw(draws.normal("posterior", posterior.mean.shape[1:]))


def draw_flips(flip: HorizontalFlip, draws: Draws, width: int) -> Tensor | None:
    """Which images of each row are mirrored, bool, (B, ``width``); None if none ever is."""
    if flip == "none":
        return None
    purposes = [f"flip {image}" if flip == "image" else "flip" for image in range(width)]
    return torch.stack([draws.uniform(purpose) < 0.5 for purpose in purposes], dim=1)


def make_batch(step: StepBatches, captioned: Captioned) -> PairBatch:
    """Some rows of a global batch as latents, with winner and loser told apart; a dropped caption is dropped for all its images.

    Args:
        step: where the rows come from and how they are drawn.
        captioned: which rows this batch holds.
    """
    data, encoded, device = step.data, step.encoded, step.accelerator.device
    rows, draws = list(captioned.row_ids), captioned.draws

    # Captions, some of them dropped (replaced by the empty caption).
    dropped = (draws.uniform("caption dropout") < step.settings.caption_dropout).tolist()
    captions = ["" if drop else data.captions[row] for row, drop in zip(rows, dropped, strict=True)]

    # Images, and which of them is preferred.
    candidates = draw_latents(step, rows, draws).to(device)
    label = torch.from_numpy(data.preference_0[rows]).to(device, torch.float32)
    last = candidates.shape[1] - 1
    swapped = label < 0.5
    winner, loser = torch.where(swapped, last, 0), torch.where(swapped, 0, last)

    def conditioning(embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeddings (B, ...) with size and crop of every candidate, (B, K, ...)."""
        size_conditioning = step.settings.size_conditioning
        each = [
            {**embeddings, **encoded.picture_condition(rows, [side] * len(rows), size_conditioning)}
            for side in range(candidates.shape[1])
        ]
        return {name: torch.stack([one[name] for one in each], dim=1).to(device) for name in each[0]}

    def columns(values: Mapping[str, NDArray[np.floating[Any]]]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(value[rows]).to(device, torch.float32) for name, value in values.items()}

    arange = torch.arange(len(rows), device=device)
    condition = conditioning(encoded.condition(captions))
    return PairBatch(
        winner=candidates[arange, winner],
        loser=candidates[arange, loser],
        candidates=candidates,
        condition={name: value[arange, winner] for name, value in condition.items()},
        loser_condition={name: value[arange, loser] for name, value in condition.items()},
        candidate_condition=condition,
        make_unconditional=lambda: conditioning(encoded.negative(len(rows))),
        winner_index=winner,
        loser_index=loser,
        preference=torch.where(swapped, 1 - label, label),
        scores=columns(data.scores),
        columns=columns(data.columns),
        row_ids=captioned.row_ids,
        batch_positions=captioned.batch_positions,
        draws=draws,
    )
