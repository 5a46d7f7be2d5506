"""The global batch of a step, cut into micro-batches and spread over processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from bench.core.chunks import batch_slices
from bench.core.randomness import Draws, batch_rows
from bench.data.buckets import PictureSize
from bench.data.preferences import PreferenceData
from bench.models.framing import Size
from bench.training.batch import PairBatch
from bench.training.settings import TrainingSettings


class Encoded(Protocol):
    """What batches need of encoded data; `bench.data.cache.EncodedData` says it in full."""

    def size(self, row: int) -> Size:
        """Height and width in pixels of a row's pictures."""

    def latents(self, rows: Sequence[int]) -> Tensor:
        """Latents of all images of some rows of one size, (B, K, C, h, w)."""

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings of captions, each (B, ...)."""

    def negative(self, count: int) -> dict[str, Tensor]:
        """Embeddings of an empty negative prompt, each (``count``, ...)."""

    def picture_condition(self, rows: Sequence[int], sides: Sequence[int], size: PictureSize) -> dict[str, Tensor]:
        """What the model is told of the size and crop of one image of each row, each (B, ...)."""


def micro_batches(
    data: PreferenceData,
    encoded: Encoded,
    settings: TrainingSettings,
    seed: int,
    step: int,
    accelerator: Accelerator,
) -> Iterator[PairBatch]:
    """This process's share of the global batch of a step, cut into micro-batches of pictures of one size."""
    rows = batch_rows(len(data), settings.global_batch_size, seed, step)
    by_size: dict[Size, list[int]] = {}
    for place in range(accelerator.process_index, settings.global_batch_size, accelerator.num_processes):
        by_size.setdefault(encoded.size(rows[place]), []).append(place)
    for places in by_size.values():
        for piece in batch_slices(len(places), settings.micro_batch_size):
            yield make_batch(
                data, encoded, rows, places[piece], settings.caption_dropout, seed, step, accelerator.device,
                settings.size_conditioning,
            )  # fmt: skip


def make_batch(
    data: PreferenceData,
    encoded: Encoded,
    rows: Sequence[int],
    places: Sequence[int],
    caption_dropout: float,
    seed: int,
    step: int,
    device: torch.device,
    size_conditioning: PictureSize = "true",
) -> PairBatch:
    """Some rows of a global batch as latents, the preferred image first; a caption is dropped for all its images alike.

    Args:
        rows: row numbers of the global batch in the data.
        places: which of them this batch holds.
    """
    mine = [rows[place] for place in places]
    draws = Draws(seed, step, mine, [rows[:place].count(rows[place]) for place in places])
    candidates = encoded.latents(mine).to(device)
    label = torch.from_numpy(data.preference_0[mine]).to(device, torch.float32)
    other = candidates.shape[1] - 1
    swapped = label < 0.5
    every = torch.arange(len(mine), device=device)
    dropped = (draws.uniform("caption dropout") < caption_dropout).tolist()
    captions = ["" if drop else data.captions[row] for row, drop in zip(mine, dropped, strict=True)]

    def told(embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeddings (B, ...) with size and crop of every candidate, (B, K, ...)."""
        sides = range(candidates.shape[1])
        each = [
            {**embeddings, **encoded.picture_condition(mine, [side] * len(mine), size_conditioning)} for side in sides
        ]
        return {name: torch.stack([one[name] for one in each], dim=1).to(device) for name in each[0]}

    def facts(columns: Mapping[str, NDArray[np.floating[Any]]]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(value[mine]).to(device, torch.float32) for name, value in columns.items()}

    winner, loser = torch.where(swapped, other, 0), torch.where(swapped, 0, other)
    condition = told(encoded.condition(captions))
    return PairBatch(
        winner=candidates[every, winner],
        loser=candidates[every, loser],
        candidates=candidates,
        condition={name: value[every, winner] for name, value in condition.items()},
        loser_condition={name: value[every, loser] for name, value in condition.items()},
        candidate_condition=condition,
        make_unconditional=lambda: told(encoded.negative(len(mine))),
        winner_index=winner,
        loser_index=loser,
        preference=torch.where(swapped, 1 - label, label),
        scores=facts(data.scores),
        columns=facts(data.columns),
        row_ids=tuple(mine),
        batch_positions=tuple(places),
        draws=draws,
    )
