"""Meaningless data of the right shapes, for steps that are run only to find out what they cost."""

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
from bench.models.family import ModelFamily, Posterior
from bench.models.framing import Framing, Size
from bench.records.config import DataReport
from bench.scoring.metric import Metric
from bench.training.algorithm import Algorithm, Need

ROWS = 1024
"""Rows of dummy data: at least as many as the captions that an algorithm generates candidates for by default."""
FEATURES = 1024
"""Width of a CLIP-H embedding."""


def prepared_data(algorithm: Algorithm, model: ModelFamily) -> tuple[PreferenceData, int]:
    """Dummy data prepared by the algorithm from random rewards, and how many forwards of the base model that would cost."""
    pairs = Need.PAIRS in algorithm.needs
    context = DummyContext(model)
    data = algorithm.prepare(dummy_data([f"caption {row}" for row in range(ROWS)], 2, labelled=pairs), context)
    return data, context.forwards


def dummy_data(captions: Sequence[str], width: int, *, labelled: bool) -> PreferenceData:
    """Data with ``width`` empty images per caption; in labelled pairs, the first and the second image win alternately."""
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
    raise NotImplementedError(f"a plan does not load scorers, but {metric} was requested")


class DummyContext(PrepareContext):
    """Random rewards, embeddings and candidates for `Algorithm.prepare`."""

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
        return dummy_data(captions, count, labelled=False)


class DummyEncoding:
    """Random posteriors, and the same random embeddings for every caption; a `bench.training.batches.Encoded`.

    Args:
        data: the data to encode.
        model: provides the size and crop conditioning; none of its networks is run.
        latents: shape of an image's latents.
        texts: shape of each caption embedding, without a batch axis.
    """

    def __init__(
        self, data: PreferenceData, model: ModelFamily, latents: Sequence[int], texts: Mapping[str, Sequence[int]]
    ) -> None:
        self._width, self._shape = data.width, tuple(latents)
        self._size = (model.resolution, model.resolution)
        self._size_conditioning = model.picture_condition(Framing.whole(self._size))
        self._values = {name: normal(shape, "blank", name) for name, shape in texts.items()}

    def size(self, row: int) -> Size:
        return self._size

    def posterior(self, rows: Sequence[int], mirrored: Tensor | None = None) -> Posterior:
        def drawn(row: int) -> Tensor:
            return torch.randn(self._width, *self._shape, generator=generator("blank latents", row))

        mean = torch.stack([drawn(row) for row in rows])
        return Posterior(mean, torch.zeros_like(mean))

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        return _repeated(self._values, len(captions))

    def negative(self, count: int) -> dict[str, Tensor]:
        return _repeated(self._values, count)

    def picture_condition(self, rows: Sequence[int], sides: Sequence[int], size: PictureSize) -> dict[str, Tensor]:
        return _repeated(self._size_conditioning, len(rows))


def _repeated(values: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {name: torch.stack([value] * count) for name, value in values.items()}


def text_shapes(encoded: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of one caption's embeddings by name, from the embeddings of a batch."""
    return {name: tuple(value.shape[1:]) for name, value in encoded.items()}
