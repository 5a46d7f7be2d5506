"""Data of the right shapes and without meaning, for steps whose cost is wanted and not what they learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.core.randomness import generator, normal
from bench.data.buckets import PictureSize
from bench.data.preferences import PreferenceData
from bench.data.prepare import PrepareContext
from bench.models.family import ModelFamily
from bench.models.framing import Framing, Size
from bench.records.config import DataReport
from bench.scoring.metric import Metric
from bench.training.algorithm import Algorithm, Need

ROWS = 1024
"""Rows of such data: at least as many as the captions that an algorithm makes candidates for by default."""
FEATURES = 1024
"""Width of a CLIP-H embedding."""


def prepared_data(algorithm: Algorithm, model: ModelFamily) -> tuple[PreferenceData, int]:
    """Data that the algorithm has prepared for itself from random rewards, and the base model's forwards that it would cost."""
    pairs = Need.PAIRS in algorithm.needs
    context = BlankContext(model)
    data = algorithm.prepare(blank_data([f"caption {row}" for row in range(ROWS)], 2, labelled=pairs), context)
    return data, context.forwards


def blank_data(captions: Sequence[str], width: int, *, labelled: bool) -> PreferenceData:
    """Data of ``width`` empty images a caption; of two, when they are labelled, the first and the second win in turns."""
    count = len(captions)
    labels = np.arange(count, dtype=np.float64) % 2 if labelled else np.full(count, np.nan)
    return PreferenceData(
        captions=captions,
        encoded=[(b"",) * width] * count,
        preference_0=np.asarray(labels, dtype=np.float64),
        digest="blank",
        report=DataReport("blank data", count, count, 0, ()),
        sizes=np.ones((count, width, 2), dtype=np.int32),
    )


def _no_scorer(metric: str) -> Metric:
    raise NotImplementedError(f"a plan loads no scorer, not even {metric}")


class BlankContext(PrepareContext):
    """Rewards, embeddings and candidates for `Algorithm.prepare`, made of random numbers."""

    def __init__(self, model: ModelFamily) -> None:
        super().__init__(_no_scorer, model, model.generation, Path())
        self._random = np.random.default_rng(0)

    def scores(self, metric: str, data: PreferenceData) -> NDArray[np.float64]:
        return self._random.normal(size=(len(data), data.width))

    def rewards(self, metric: str, data: PreferenceData) -> NDArray[np.float64]:
        return self.scores(metric, data)

    def features(self, metric: str, data: PreferenceData) -> NDArray[np.float32]:
        values = self._random.normal(size=(len(data), 1 + data.width, FEATURES)).astype(np.float32)
        return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True))

    def _generate(self, captions: Sequence[str], count: int) -> PreferenceData:
        return blank_data(captions, count, labelled=False)


class DummyEncoding:
    """Random latents, and the same random embeddings for every caption; a `bench.training.batches.Encoded`.

    Args:
        data: whose rows they are.
        model: told of sizes; nothing of it is run.
        latents: shape of an image's latents.
        texts: shape of each embedding of a caption, without a batch axis.
    """

    def __init__(
        self, data: PreferenceData, model: ModelFamily, latents: Sequence[int], texts: Mapping[str, Sequence[int]]
    ) -> None:
        self._width, self._shape = data.width, tuple(latents)
        self._size = (model.resolution, model.resolution)
        self._told = model.picture_condition(Framing.whole(self._size))
        self._values = {name: normal(shape, "blank", name) for name, shape in texts.items()}

    def size(self, row: int) -> Size:
        return self._size

    def latents(self, rows: Sequence[int]) -> Tensor:
        def drawn(row: int) -> Tensor:
            return torch.randn(self._width, *self._shape, generator=generator("blank latents", row))

        return torch.stack([drawn(row) for row in rows])

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        return _repeated(self._values, len(captions))

    def negative(self, count: int) -> dict[str, Tensor]:
        return _repeated(self._values, count)

    def picture_condition(self, rows: Sequence[int], sides: Sequence[int], size: PictureSize) -> dict[str, Tensor]:
        return _repeated(self._told, len(rows))


def _repeated(values: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {name: torch.stack([value] * count) for name, value in values.items()}


def text_shapes(encoded: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of one caption's embeddings by name, of those of a batch."""
    return {name: tuple(value.shape[1:]) for name, value in encoded.items()}
