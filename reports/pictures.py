"""Small images embedded in a report: the same prompts and noise under every model."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bench.core.images import UnreadableImageError, open_image
from bench.records.reading import damaged
from bench.records.scores import MetricRecord
from reports.records import Records, RunRecord

PROMPTS = 16
"""Maximum number of prompts to show side by side."""
EXTREMES = 4
"""How many images of a row are shown where it won most, and where it lost most."""
SIZES = (256, 192, 128, 96)
"""Largest side of an embedded image, in pixels; smaller where a page would otherwise be too large."""
BYTES = 3_000_000
"""What all images of a report may take; as text they take a third more."""
PROBES = 24
"""Images that are encoded to find the size at which all fit."""


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """An image as a data URI, with its displayed score."""

    uri: str
    score: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class ComparedPrompt:
    """One prompt and its first image under every model.

    Attributes:
        index: position among the evaluation prompts.
        prompt: the prompt.
        pictures: in the order of the report's rows, first training seed; None if the image is not on disk.
    """

    index: int
    prompt: str
    pictures: tuple[Picture | None, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Duel:
    """A row's first image for a prompt beside the base's.

    Attributes:
        prompt: the prompt.
        base: the base's image.
        row: the row's.
        gain: how much better the row's displayed score is; negative where it is worse.
    """

    prompt: str
    base: Picture
    row: Picture
    gain: float


@dataclasses.dataclass(frozen=True, slots=True)
class Extremes:
    """Where a row won and lost most against the base.

    Attributes:
        label: of the row.
        won: the largest gains first.
        lost: the largest losses first.
    """

    label: str
    won: tuple[Duel, ...]
    lost: tuple[Duel, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Images side by side.

    Attributes:
        metric: title of the metric that scores the images.
        prompts: evenly spaced among the evaluation prompts.
        extremes: by row, without rows whose images or scores are missing.
    """

    metric: str
    prompts: tuple[ComparedPrompt, ...]
    extremes: tuple[Extremes, ...]


def compare(records: Records) -> Comparison:
    """Images of evenly spaced prompts and of the largest gains and losses, scored by the first metric (``gold`` if it is there).

    Raises:
        UserError: an image is not the one that was scored.
    """
    metric, rows = records.metrics[0], (records.base, *records.rows)
    count = len(records.prompts)
    chosen = np.unique(np.linspace(0, count - 1, min(PROMPTS, count)).round().astype(int)).tolist()
    far = [(row, *_most(row, records.base, metric)) for row in records.rows]
    wanted = [(row, index) for row in rows for index in chosen]
    wanted += [(each, index) for row, won, lost in far for index in (*won, *lost) for each in (records.base, row)]
    places = {(row.label, index): row.evaluation.image(index, 0) for row, index in wanted}
    encode = _encoder([place for place in places.values() if place.exists()])
    known: dict[tuple[str, int], Picture | None] = {}

    def picture(row: RunRecord, index: int) -> Picture | None:
        key = (row.label, index)
        if key not in known:
            known[key] = _picture(row, index, metric, encode)
        return known[key]

    def duels(row: RunRecord, indices: Sequence[int]) -> tuple[Duel, ...]:
        if not indices:  # also of a row without this metric
            return ()
        gains = _gains(row, records.base, metric)
        pairs = [(index, picture(records.base, index), picture(row, index)) for index in indices]
        return tuple(
            Duel(records.prompts[index], one, other, float(gains[index]))
            for index, one, other in pairs
            if one and other
        )

    prompts = [ComparedPrompt(i, records.prompts[i], tuple(picture(row, i) for row in rows)) for i in chosen]
    extremes = [Extremes(row.label, duels(row, won), duels(row, lost)) for row, won, lost in far]
    return Comparison(
        metric.info.title, tuple(prompts), tuple(extreme for extreme in extremes if extreme.won or extreme.lost)
    )


def open_picture(picture: Picture) -> Image.Image:
    """A picture decoded to RGB."""
    return open_image(base64.b64decode(picture.uri.partition(",")[2])).convert("RGB")


def _gains(row: RunRecord, base: RunRecord, metric: MetricRecord) -> np.ndarray:
    """How much better the first seed's first image is than the base's, by prompt, in displayed units."""
    sign = 1 if metric.info.higher_is_better else -1
    difference = row.scores[metric.name][0, :, 0] - base.scores[metric.name][0, :, 0]
    return np.asarray(difference * metric.info.display_factor * sign)


def _most(row: RunRecord, base: RunRecord, metric: MetricRecord) -> tuple[list[int], list[int]]:
    """The prompts of a row's largest gains and of its largest losses."""
    if metric.name not in row.scores or metric.name not in base.scores:
        return [], []
    gains = _gains(row, base, metric)
    order = np.argsort(-gains, kind="stable")
    won = [int(index) for index in order[:EXTREMES] if gains[index] > 0]
    lost = [int(index) for index in order[::-1][:EXTREMES] if gains[index] < 0]
    return won, lost


def _picture(row: RunRecord, index: int, metric: MetricRecord, encode: Callable[[Path], bytes]) -> Picture | None:
    path = row.evaluation.image(index, 0)
    if not path.exists():
        return None
    row.evaluation.check_images((index, 0))
    scores = row.scores.get(metric.name)
    uri = f"data:image/webp;base64,{base64.b64encode(encode(path)).decode()}"
    return Picture(uri, None if scores is None else float(scores[0, index, 0] * metric.info.display_factor))


def _encoder(paths: Sequence[Path]) -> Callable[[Path], bytes]:
    """Encodes images at the largest of `SIZES` at which all of them fit into `BYTES`, judged by a few of them."""
    probes = paths[:: max(1, len(paths) // PROBES)]
    for side in SIZES[:-1]:
        if sum(len(_webp(path, side)) for path in probes) * len(paths) <= BYTES * len(probes):
            return lambda path, side=side: _webp(path, side)  # type: ignore[misc]
    return lambda path: _webp(path, SIZES[-1])


def _webp(path: Path, side: int) -> bytes:
    stream = io.BytesIO()
    try:
        image = open_image(path).convert("RGB")
    except UnreadableImageError as error:
        raise damaged(path, error) from error
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(stream, format="WEBP", quality=85)
    return stream.getvalue()
