"""The scoring loop: every score is appended to the records as it is made, and a second call computes only what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from bench.core.chunks import CHUNK, batch_slices
from bench.core.errors import UserError
from bench.core.files import append_lines, keep_lines, read_lines
from bench.core.images import UnreadableImageError, open_image
from bench.core.prefetch import prefetched
from bench.core.processes import ALONE, Processes
from bench.core.progress import Progress
from bench.records.scores import PromptedImage
from bench.scoring.metric import Metric, checked_scores


def score_images(
    records: Path,
    title: str,
    name: str,
    metric: Metric,
    signature: str,
    images: Sequence[PromptedImage],
    processes: Processes = ALONE,
) -> list[float]:
    """Score images in chunks, from where an earlier call stopped; the next chunk is decoded while the metric scores the current one.

    Args:
        records: JSON-lines file; a line holds an image's key, ``metric``, ``score`` (raw) and ``signature``.  Lines of other
            metrics and of other signatures stay; lines of this signature for other images are removed.
        title: what the progress display calls the images.
        name: the metric's registered name.
        signature: the metric's signature under its settings.
        processes: the processes that share the work; each scores whole chunks, and the main process writes them in order.

    Returns:
        Raw scores, one per image.

    Raises:
        UserError: a metric returns scores that are not finite, or too few; or an image has disappeared.
    """
    chunks = [images[piece] for piece in batch_slices(len(images), CHUNK)]
    values = processes.from_main(lambda: _take_up(records, name, signature, chunks))
    missing = [place for place, scores in enumerate(values) if scores is None]
    done = sum(len(scores) for scores in values if scores is not None)
    # One chunk per process and round, so the main process writes chunks in order.
    rounds = [processes.share(missing[piece]) for piece in batch_slices(len(missing), processes.count)]

    def opened(places: Sequence[int]) -> list[list[Image.Image]]:
        return [[_opened(image.path) for image in chunks[place]] for place in places]

    with Progress(f"{name} of {title}", total=len(images), done=done) as progress:
        for places, decoded in prefetched(opened, rounds):
            mine = [
                (place, _score_chunk(name, metric, chunks[place], chunk))
                for place, chunk in zip(places, decoded, strict=True)
            ]
            for place, scores in processes.gathered(mine):
                values[place] = scores
                if processes.main:
                    _record(records, name, signature, chunks[place], scores)
                progress.advance(len(scores))
    return [score for scores in values if scores is not None for score in scores]


def _take_up(
    records: Path, name: str, signature: str, chunks: Sequence[Sequence[PromptedImage]]
) -> list[list[float] | None]:
    """The scores of every chunk that an earlier call finished; None for the others, whose lines are removed."""
    written = read_lines(records)
    fields = tuple(chunks[0][0].key) if chunks else ()
    kept, known = [], {}
    for record in written:
        if (record["metric"], record["signature"]) == (name, signature):
            known[tuple(record[field] for field in fields)] = record
        else:
            kept.append(record)
    done = [all(image.place in known for image in chunk) for chunk in chunks]
    kept += [known[image.place] for chunk, whole in zip(chunks, done, strict=True) if whole for image in chunk]
    keep_lines(records, kept)  # without a last line that a crash cut short
    return [
        [known[image.place]["score"] for image in chunk] if whole else None
        for chunk, whole in zip(chunks, done, strict=True)
    ]


def _score_chunk(
    name: str, metric: Metric, chunk: Sequence[PromptedImage], images: Sequence[Image.Image]
) -> list[float]:
    return checked_scores(name, metric.score(images, [image.prompt for image in chunk]), len(chunk))


def _record(records: Path, name: str, signature: str, chunk: Sequence[PromptedImage], scores: Sequence[float]) -> None:
    lines = [
        {**image.key, "metric": name, "score": score, "signature": signature}
        for image, score in zip(chunk, scores, strict=True)
    ]
    append_lines(records, [json.dumps(line, ensure_ascii=False) for line in lines])


def _opened(path: Path) -> Image.Image:
    try:
        return open_image(path)
    except UnreadableImageError as error:
        raise UserError(
            f"image {path} cannot be scored: {error}; fix or delete it and run the command again"
        ) from error


def refuse_constant(name: str, metric: Metric, scores: Sequence[float], title: str) -> None:
    """Raise a `UserError` when a continuous metric returns the same score for several different images."""
    if metric.continuous and len(scores) > 1 and len(set(scores)) == 1:
        raise UserError(
            f"metric {name!r} returns the score {scores[0]} for all {len(scores)} images of {title}; fix the metric"
        )


@dataclass(frozen=True, slots=True)
class Judge:
    """A scorer that is not loaded yet.

    Attributes:
        kind: its class.
        checkpoint: see `bench.scoring.metric.Metric.load`.
    """

    kind: type[Metric]
    checkpoint: str | None

    def load(self, device: torch.device) -> Metric:
        """The scorer, on a device."""
        return self.kind.load(self.checkpoint, device=device)
