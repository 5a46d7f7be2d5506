"""What an algorithm's `prepare` may use: scorers, their embeddings and generated candidates, all of them cached."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UserError
from bench.core.values import digest
from bench.data.candidates import generate_candidates
from bench.data.preferences import PreferenceData
from bench.data.row_cache import cached_rows
from bench.data.scores import rewards, score_data, turned
from bench.models.family import ModelFamily
from bench.models.sampling import forwards_per_image
from bench.records.protocol import GenerationSettings
from bench.scoring.metric import EmbeddingMetric, Metric, recorded_identity


class PrepareContext:
    """What `bench.Algorithm.prepare` may use: scorers, embeddings and images by the base model, each computed once and cached.

    Scores of a placebo's data (`PreferenceData.shuffle`) are permuted within each row after they are read from the cache, which
    holds every image's own.

    N is the number of rows of the data, K the number of images of each.

    Args:
        load_metric: loads the scorer of a name, with the checkpoint that the model is evaluated with.
        model: the base model.
        generation: how its images are generated.
        cache: a folder shared by all runs on the same data.

    Attributes:
        forwards: network forwards of the base model that the prepared data cost, whether computed now or cached.
        notes: facts that `prepare` found and a reader of the run needs; written to ``prepared.json``.
    """

    def __init__(
        self, load_metric: Callable[[str], Metric], model: ModelFamily, generation: GenerationSettings, cache: Path
    ) -> None:
        self._load_metric, self._model, self._generation, self._cache = load_metric, model, generation, cache
        self.forwards = 0
        self.notes: dict[str, Any] = {}

    def scores(self, metric: str, data: PreferenceData) -> NDArray[np.float64]:
        """Scores of all images in the raw unit, turned so that higher is better; float64, (N, K).

        Computed once per data and scorer.

        Raises:
            UserError: there is no such metric, or its scores are not finite.
        """
        scorer = self._load_metric(metric)
        return turned(scorer.info, self._score(metric, scorer, data))

    def rewards(self, metric: str, data: PreferenceData) -> NDArray[np.float64]:
        """The same in the unit that tables show, for objectives that depend on the scale of scores; float64, (N, K)."""
        scorer = self._load_metric(metric)
        return rewards(scorer.info, self._score(metric, scorer, data))

    def features(self, metric: str, data: PreferenceData) -> NDArray[np.float32]:
        """Embeddings by a CLIP scorer of each row's caption and images, captions first; float32, (N, 1 + K, D), length 1.

        Computed once per data and scorer, memory-mapped and read-only.

        Raises:
            UserError: the metric has no embeddings.
        """
        scorer = self._load_metric(metric)
        if not isinstance(scorer, EmbeddingMetric):
            raise UserError(f"metric {metric!r} has no embeddings; choose a CLIP scorer such as pickscore or clip")
        width = data.width

        def embed(rows: slice) -> NDArray[np.float32]:
            embedded = scorer.embed_images(data.images(range(rows.start, rows.stop))).numpy()
            texts = scorer.embed_texts(data.captions[rows]).numpy()
            return np.concatenate([texts[:, None], embedded.reshape(len(texts), width, -1)], axis=1)

        path = self._cache / f"features-{digest([data.digest, metric, recorded_identity(scorer)])}.npy"
        return cached_rows(path, f"{metric}'s embeddings of {Path(data.report.source).name}", len(data), embed)

    def lists(self, data: PreferenceData, captions: int, count: int) -> PreferenceData:
        """Lists of images: the data itself if it has more than two per caption, else images that the base model generates.

        Generating them counts as ``forwards`` of the base model, even if they were cached.

        Args:
            data: lists, or pairs whose captions are used.
            captions: largest number of captions to generate images for.
            count: images by the base model per caption; generated once per captions, count and settings.
        """
        if data.width > 2:
            return data
        candidates = self._candidates(list(dict.fromkeys(data.captions))[:captions], count)
        return dataclasses.replace(candidates, shuffle=data.shuffle)

    def _score(self, metric: str, scorer: Metric, data: PreferenceData) -> NDArray[np.float64]:
        scores = score_data(metric, scorer, data, self._cache)
        return scores if data.shuffle is None else data.shuffle.scores(scores)

    def _candidates(self, captions: Sequence[str], count: int) -> PreferenceData:
        self.forwards += len(captions) * count * forwards_per_image(self._model, self._generation)
        return self._generate(captions, count)

    def _generate(self, captions: Sequence[str], count: int) -> PreferenceData:
        return generate_candidates(self._model, captions, count, self._generation, self._cache / "candidates")
