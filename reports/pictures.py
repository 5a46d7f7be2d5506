"""Small images embedded in a report: the same prompts and noise under every model."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bench.core.images import UnreadableImageError, open_image
from bench.records.reading import damaged
from bench.records.scores import MetricRecord
from reports.records import Records, RunRecord
from reports.seed_variance import Array

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
    """A row's first image for a prompt beside the reference's.

    Attributes:
        prompt: the prompt.
        reference: the reference's image.
        row: the row's.
        gain: how much better the row's displayed score is; negative where it is worse.
    """

    prompt: str
    reference: Picture
    row: Picture
    gain: float


@dataclasses.dataclass(frozen=True, slots=True)
class Extremes:
    """Where a row won and lost most against the reference.

    Attributes:
        row: position among the rows.
        won: the largest gains first.
        lost: the largest losses first.
    """

    row: int
    won: tuple[Duel, ...]
    lost: tuple[Duel, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Images side by side.

    Attributes:
        metric: title of the metric that scores the images; None where there is no metric.
        prompts: evenly spaced among the evaluation prompts.
        extremes: by row, without rows whose images or scores are missing.
    """

    metric: str | None
    prompts: tuple[ComparedPrompt, ...]
    extremes: tuple[Extremes, ...]


def compare(records: Records, places: Sequence[int]) -> Comparison:
    """Images of evenly spaced prompts and of the largest gains and losses, scored by the first metric (``gold`` if it is there).

    Args:
        records: what was read.
        places: of the rows among the records, where the base is 0, in the order to show; the first is the reference.

    Raises:
        UserError: an image is damaged, or is not the one that was scored.
    """
    metric = records.metrics[0] if records.metrics else None
    known = (records.base, *records.rows)
    rows = [known[place] for place in places]
    count = len(records.prompts)
    chosen = np.unique(np.linspace(0, count - 1, min(PROMPTS, count)).round().astype(int)).tolist()
    gains = {
        place: gain for place, row in enumerate(rows[1:], start=1) if (gain := _gains(row, rows[0], metric)) is not None
    }
    far = {place: _furthest(gain) for place, gain in gains.items()}
    wanted = [(place, index) for place in range(len(rows)) for index in chosen]
    wanted += [(each, index) for place, (won, lost) in far.items() for index in (*won, *lost) for each in (0, place)]
    pictures = _pictures(rows, wanted, metric)

    def duels(place: int, indices: Sequence[int]) -> tuple[Duel, ...]:
        pairs = [(index, pictures[0, index], pictures[place, index]) for index in indices]
        return tuple(
            Duel(records.prompts[index], one, other, float(gains[place][index]))
            for index, one, other in pairs
            if one and other
        )

    prompts = [
        ComparedPrompt(index, records.prompts[index], tuple(pictures[place, index] for place in range(len(rows))))
        for index in chosen
    ]
    extremes = [Extremes(place, duels(place, won), duels(place, lost)) for place, (won, lost) in far.items()]
    return Comparison(
        None if metric is None else metric.info.title,
        tuple(prompts),
        tuple(extreme for extreme in extremes if extreme.won or extreme.lost),
    )


def open_picture(picture: Picture) -> Image.Image:
    """An image decoded to RGB."""
    return open_image(base64.b64decode(picture.uri.partition(",")[2])).convert("RGB")


def _gains(row: RunRecord, reference: RunRecord, metric: MetricRecord | None) -> Array | None:
    """How much better the first seed's first image is than the reference's, by prompt, in displayed units; None without scores."""
    if metric is None or metric.name not in row.scores or metric.name not in reference.scores:
        return None
    sign = 1 if metric.info.higher_is_better else -1
    difference = row.scores[metric.name][0, :, 0] - reference.scores[metric.name][0, :, 0]
    return np.asarray(difference * metric.info.display_factor * sign)


def _furthest(gains: Array) -> tuple[list[int], list[int]]:
    """The prompts of the largest gains and of the largest losses."""
    order = np.argsort(-gains, kind="stable")
    won = [int(index) for index in order[:EXTREMES] if gains[index] > 0]
    lost = [int(index) for index in order[::-1][:EXTREMES] if gains[index] < 0]
    return won, lost


def _pictures(
    rows: Sequence[RunRecord], wanted: Iterable[tuple[int, int]], metric: MetricRecord | None
) -> dict[tuple[int, int], Picture | None]:
    """Images by the row's position and the prompt's; None where the image is not on disk."""
    paths = {(place, index): rows[place].evaluation.image(index, 0) for place, index in wanted}
    encode = _encoder([path for path in paths.values() if path.exists()])
    return {
        (place, index): _picture(rows[place], index, metric, encode) if path.exists() else None
        for (place, index), path in paths.items()
    }


def _picture(row: RunRecord, index: int, metric: MetricRecord | None, encode: Callable[[Path], bytes]) -> Picture:
    row.evaluation.check_images((index, 0))
    scores = None if metric is None else row.scores.get(metric.name)
    uri = f"data:image/webp;base64,{base64.b64encode(encode(row.evaluation.image(index, 0))).decode()}"
    factor = 1.0 if metric is None else metric.info.display_factor
    return Picture(uri, None if scores is None else float(scores[0, index, 0] * factor))


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
