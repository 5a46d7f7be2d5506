"""Scores of preference data by registered metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.core.values import digest
from bench.data.preferences import PreferenceData
from bench.data.row_cache import cached_rows
from bench.records.scores import MetricInfo
from bench.scoring.metric import Metric, checked_scores, recorded_identity


def score_data(name: str, scorer: Metric, data: PreferenceData, folder: Path) -> NDArray[np.float64]:
    """Raw scores of all images; float64, (N, K).  Cached in ``folder``, from which an interrupted call resumes.

    Raises:
        UserError: the scorer returns scores that are not finite, or too few.
    """
    bound, width = scorer.for_prompts(data.captions), data.width

    def score(rows: slice) -> NDArray[np.float64]:
        images = data.images(range(rows.start, rows.stop))
        captions = [caption for caption in data.captions[rows] for _ in range(width)]
        return np.asarray(checked_scores(name, bound.score(images, captions), len(images))).reshape(-1, width)

    path = folder / f"scores-{digest([data.digest, name, recorded_identity(bound)])}.npy"
    return np.array(cached_rows(path, f"{name} of {Path(data.report.source).name}", len(data), score))


def turned(info: MetricInfo, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raw scores of a metric, negated if lower is better; of any shape."""
    return scores if info.higher_is_better else -scores


def rewards(info: MetricInfo, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raw scores of a metric in the unit that tables show, negated if lower is better; of any shape."""
    return info.display_factor * turned(info, scores)


def labels_by_reward(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``label_0`` by rewards of pairs, (N, 2) to (N,): 1, 0, or 0.5 for equal rewards."""
    return 0.5 + 0.5 * np.sign(values[:, 0] - values[:, 1])
