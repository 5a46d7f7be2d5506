"""The scoring loop: every score is appended to the records as it is made, and a second call makes only what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench import registry
from bench.errors import UserError
from bench.files import append_lines, keep_lines, read_lines
from bench.images import CHUNK, UnreadableImageError, open_image
from bench.metric import Metric, checked_scores, pieces
from bench.prefetch import prefetched
from bench.processes import ALONE, Processes
from bench.progress import Progress


@dataclass(frozen=True, slots=True)
class Picture:
    """An image to score.

    Attributes:
        path: its file.
        prompt: what it is judged against.
        key: what tells it from the others in a record; the same fields for every image of a call, JSON values.
    """

    path: Path
    prompt: str
    key: Mapping[str, Any]

    @property
    def place(self) -> tuple[Any, ...]:
        """The key's values."""
        return tuple(self.key.values())


def score_pictures(
    records: Path,
    title: str,
    name: str,
    metric: Metric,
    signature: str,
    pictures: Sequence[Picture],
    processes: Processes = ALONE,
) -> list[float]:
    """Score images in chunks, from where an earlier call stopped; the next chunk is decoded while the metric works on one.

    Args:
        records: JSON-lines file; a line holds a picture's key, ``metric``, ``score`` (raw) and ``signature``.  Lines of other
            metrics stay, lines of this one for another signature or other pictures go.
        title: what the progress display calls the images.
        name: the metric's registered name.
        signature: of the metric under its settings.
        processes: who does it; each scores whole chunks, and the main process writes them in order.

    Returns:
        Raw scores, one for each picture.

    Raises:
        UserError: a metric returns scores that are not finite, or too few; or an image has vanished meanwhile.
    """
    chunks = [pictures[piece] for piece in pieces(len(pictures), CHUNK)]
    values = processes.from_main(lambda: _take_up(records, name, signature, chunks))
    missing = [place for place, scores in enumerate(values) if scores is None]
    done = sum(len(scores) for scores in values if scores is not None)
    rounds = [processes.share(missing[piece]) for piece in pieces(len(missing), processes.count)]  # a chunk each

    def opened(places: Sequence[int]) -> list[list[Image.Image]]:
        return [[_opened(picture.path) for picture in chunks[place]] for place in places]

    with Progress(f"{name} of {title}", total=len(pictures), done=done) as progress:
        for places, images in prefetched(opened, rounds):
            mine = [
                (place, _score_chunk(name, metric, chunks[place], chunk))
                for place, chunk in zip(places, images, strict=True)
            ]
            for place, scores in processes.gathered(mine):
                values[place] = scores
                if processes.main:
                    _record(records, name, signature, chunks[place], scores)
                progress.advance(len(scores))
    return [score for scores in values if scores is not None for score in scores]


def _take_up(records: Path, name: str, signature: str, chunks: Sequence[Sequence[Picture]]) -> list[list[float] | None]:
    """The scores of every chunk that an earlier call finished, None for the others, whose lines go."""
    written = read_lines(records)
    fields = tuple(chunks[0][0].key) if chunks else ()
    known = {
        tuple(record[field] for field in fields): record
        for record in written
        if record["metric"] == name and record["signature"] == signature
    }
    done = [all(picture.place in known for picture in chunk) for chunk in chunks]
    kept = [record for record in written if record["metric"] != name]
    kept += [known[picture.place] for chunk, whole in zip(chunks, done, strict=True) if whole for picture in chunk]
    keep_lines(records, kept)  # without a last line that a crash cut short
    return [
        [known[picture.place]["score"] for picture in chunk] if whole else None
        for chunk, whole in zip(chunks, done, strict=True)
    ]


def _score_chunk(name: str, metric: Metric, chunk: Sequence[Picture], images: Sequence[Image.Image]) -> list[float]:
    return checked_scores(name, metric.score(images, [picture.prompt for picture in chunk]), len(chunk))


def _record(records: Path, name: str, signature: str, chunk: Sequence[Picture], scores: Sequence[float]) -> None:
    lines = [
        {**picture.key, "metric": name, "score": score, "signature": signature}
        for picture, score in zip(chunk, scores, strict=True)
    ]
    append_lines(records, [json.dumps(line, ensure_ascii=False) for line in lines])


def _opened(path: Path) -> Image.Image:
    try:
        return open_image(path)
    except UnreadableImageError as error:
        raise UserError(
            f"image {path} cannot be scored: {error}; mend or delete it and give the command again"
        ) from error


def refuse_constant(name: str, metric: Metric, scores: Sequence[float], title: str) -> None:
    """Raise a `UserError` when a continuous metric gives several different images one score."""
    if metric.continuous and len(scores) > 1 and len(set(scores)) == 1:
        raise UserError(
            f"metric {name!r} gives all {len(scores)} images of {title} the score {scores[0]}; the metric is broken"
        )


@dataclass(frozen=True, slots=True)
class Judge:
    """A scorer that is not loaded yet.

    Attributes:
        kind: its class.
        checkpoint: see `bench.metric.Metric.load`.
    """

    kind: type[Metric]
    checkpoint: str | None

    def load(self, device: torch.device) -> Metric:
        """The scorer, on a device."""
        return self.kind.load(self.checkpoint, device=device)


def choose_metrics(names: Sequence[str] | None, model: str | None, own: Mapping[str, str]) -> dict[str, Judge]:
    """Scorers by registered name.

    Args:
        names: which; None is all that the model is judged by.
        model: a registered model, whose checkpoints are used; None is the published ones.
        own: checkpoints by metric; they come first.

    Raises:
        UserError: an unknown name, no names, or a checkpoint for a metric that is not asked for.
    """
    judged_by = {} if model is None else registry.models.get(model).metrics
    chosen = list(judged_by) if names is None else names
    if not chosen:
        raise UserError(f"name the metrics: --metrics {','.join(registry.metrics)}, or some of these")
    for name in own:
        if name not in chosen:
            raise UserError(f"--checkpoint {name}=... is for a metric that is not asked for; add it to --metrics")
    return {name: Judge(registry.metrics.get(name), own.get(name, judged_by.get(name))) for name in chosen}
