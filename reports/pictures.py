"""Small images embedded in a report: the same prompts and noise under every model."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image

from bench.core.images import open_image
from reports.records import Records, RunRecord

PROMPTS = 24
"""Maximum number of prompts to show side by side."""

LARGEST_SIDE = 256
"""In pixels; larger images are scaled down."""


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
class Comparison:
    """Images side by side.

    Attributes:
        metric: title of the metric that scores the images.
        prompts: evenly spaced among the evaluation prompts.
    """

    metric: str
    prompts: tuple[ComparedPrompt, ...]


def compare(records: Records) -> Comparison:
    """Images of evenly spaced prompts, scored by ``gold`` or, without it, by the first metric.

    Raises:
        UserError: an image is not the one that was scored.
    """
    metric = next((metric for metric in records.metrics if metric.name == "gold"), records.metrics[0])
    count = len(records.prompts)
    chosen = np.unique(np.linspace(0, count - 1, min(PROMPTS, count)).round().astype(int)).tolist()

    def picture(row: RunRecord, index: int) -> Picture | None:
        path = row.evaluation.image(index, 0)
        if not path.exists():
            return None
        row.evaluation.check_images((index, 0))
        scores = row.scores.get(metric.name)
        return Picture(
            _data_uri(path), None if scores is None else float(scores[0, index, 0] * metric.info.display_factor)
        )

    rows = (records.base, *records.rows)
    prompts = [ComparedPrompt(i, records.prompts[i], tuple(picture(row, i) for row in rows)) for i in chosen]
    return Comparison(metric.info.title, tuple(prompts))


def open_picture(picture: Picture) -> Image.Image:
    """A picture decoded to RGB."""
    with Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))) as image:
        return image.convert("RGB")


def _data_uri(path: Path) -> str:
    stream = io.BytesIO()
    image = open_image(path).convert("RGB")
    if max(image.size) <= LARGEST_SIDE:
        kind = "png"
        image.save(stream, format="PNG", optimize=True)
    else:
        kind = "webp"
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        image.save(stream, format="WEBP", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
