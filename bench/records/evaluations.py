"""One evaluation on disk: its protocol, prompts, images and scores, and the manifest that says what they were when it ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.core.files import read_lines, write_json
from bench.core.manifest import Manifest
from bench.records.bounds import Count
from bench.records.lines import ScoreLine, checked_scores
from bench.records.protocol import Protocol, Variant, prompts_digest
from bench.records.reading import (
    check_complete,
    check_listed,
    checked_path,
    damaged,
    read_manifest,
    read_record,
    read_whole,
    validated,
)
from bench.records.scores import MetricRecord, PromptedImage

DONE = "DONE"
"""Name of the manifest that marks finished work."""
PROTOCOL, VARIANT, METRICS, PROMPTS = "protocol.json", "variant.json", "metrics.json", "prompts.json"
IN_TRAINING, SCORES = "in_training.json", "scores.jsonl"
RECORDS = (PROTOCOL, VARIANT, METRICS, PROMPTS, IN_TRAINING, SCORES)
"""Files of an evaluation besides its images and its manifest."""
IMAGES = "images"


class Evaluation:
    """Images and scores of one set of weights under one protocol.

    What is read from a finished evaluation is checked against its manifest; of one that an older version wrote only the values
    are checked.  What does not hold is a `UserError` that names the file.

    Args:
        folder: where it is.
        weights: returns the digest of the weights that it is of, None where that is unknown; `finish` records it.
    """

    def __init__(self, folder: Path, weights: Callable[[], str | None] = lambda: None) -> None:
        self.folder = folder
        self._weights = weights
        self.images = folder / IMAGES
        self.scores = folder / SCORES
        self._done = folder / DONE

    @property
    def done(self) -> bool:
        """Whether every image has every score."""
        return self._done.exists()

    @property
    def has_digests(self) -> bool:
        """Whether its manifest lists its files; those of older versions are empty."""
        return read_manifest(self._done) is not None

    def finish(self) -> None:
        """Mark it as finished, with a manifest of its files as they are now."""
        present = [path for path in (self.folder / name for name in RECORDS) if path.exists()]
        Manifest.of(self._done, [*present, *self.images.glob("*.png")], self._weights()).write()

    def reopen(self) -> None:
        """Mark it as unfinished, since its files are about to change."""
        self._done.unlink(missing_ok=True)

    def check_complete(self) -> None:
        """Check that every file of the finished evaluation is there with its size, and that no record was changed."""
        self._check_weights()
        check_complete(self._done)

    def check_images(self, *items: tuple[int, int]) -> None:
        """Check that images, by prompt and image index, are those that the finished evaluation has scores of."""
        check_listed(self._done, *(self.image(*item) for item in items))

    @property
    def protocol_signature(self) -> str:
        """The signature of its protocol."""
        return self.folder.name.partition("-")[0]

    @property
    def own(self) -> bool:
        """Whether it is the run's own result under the protocol."""
        return self.folder.name == self.protocol_signature

    def variant(self) -> Variant | None:
        """How its sampling departs from the protocol's; None if it does not."""
        path = self._checked(VARIANT)
        variant = read_record(Variant, path) if path.exists() else None
        if not self.own and (variant is None or variant.signature != self.folder.name.partition("-")[2]):
            raise damaged(path, "it is not the sampling that the folder is named after")
        return variant

    def protocol(self) -> Protocol:
        """The protocol."""
        path = self._checked(PROTOCOL)
        protocol = read_record(Protocol, path)
        if protocol.signature != self.protocol_signature:
            raise damaged(path, "it is not the protocol that the folder is named after")
        return protocol

    def metrics(self) -> Mapping[str, MetricRecord]:
        """The metrics with which all images are scored, by name; at first none."""
        path = self._checked(METRICS)
        written = read_record(dict[str, dict[str, Any]], path) if path.exists() else {}
        named = {name: {"name": name, **metric} for name, metric in written.items()}
        metrics = validated(dict[str, MetricRecord], named, path)
        protocol = self.protocol() if metrics else None
        for name, metric in metrics.items():
            if protocol is not None and metric.signature != protocol.metric_signature(name, metric.identity):
                raise damaged(path, f"{name}: its signature is not that of its identity")
        return metrics

    def write_metrics(self, metrics: Mapping[str, MetricRecord]) -> None:
        """Write with which metrics all images are scored."""
        written = {name: dataclasses.asdict(metric) for name, metric in metrics.items()}
        for metric in written.values():
            del metric["name"]
        write_json(self.folder / METRICS, written)

    def prompts(self) -> list[str]:
        """The evaluation prompts in their order."""
        path = self._checked(PROMPTS)
        prompts = read_record(list[str], path)
        if prompts_digest(prompts) != self.protocol().prompts:
            raise damaged(path, "they are not the prompts of the protocol")
        return prompts

    def image(self, prompt_index: int, image_index: int) -> Path:
        """Where the image of a prompt is."""
        return self.images / f"{prompt_index:05d}-{image_index:02d}.png"

    @property
    def items(self) -> list[tuple[int, int]]:
        """Prompt and image index of every image."""
        protocol = self.protocol()
        images = protocol.generation.images_per_prompt
        return [(prompt, image) for prompt in range(protocol.prompt_count) for image in range(images)]

    def pictures(self) -> list[PromptedImage]:
        """Every image with its prompt, whether it is there or not."""
        prompts = self.prompts()
        return [
            PromptedImage(self.image(*item), prompts[item[0]], {"prompt_index": item[0], "image_index": item[1]})
            for item in self.items
        ]

    def note_prompts_in_training(self, count: int) -> None:
        """Record how many of the prompts were captions in training."""
        if self.prompts_in_training != count:
            path = self.folder / IN_TRAINING
            write_json(path, {"prompts": count})
            if (manifest := read_manifest(self._done)) is not None:
                manifest.with_file(path).write()

    @property
    def prompts_in_training(self) -> int | None:
        """How many of the prompts were captions in training; None where nobody has looked."""
        path = self._checked(IN_TRAINING)
        if not path.exists():
            return None
        count = read_record(dict[str, Count], path).get("prompts")
        if count is None or count > self.protocol().prompt_count:
            raise damaged(path, "prompts: a number of prompts of the protocol is required")
        return count

    def score_records(self) -> list[ScoreLine]:
        """Lines of ``scores.jsonl``: the scores under the signatures that `metrics` has; those of older signatures stay in the file."""
        current = {(name, metric.signature) for name, metric in self.metrics().items()}
        return [line for line in self.all_scores() if (line["metric"], line["signature"]) in current] if current else []

    def all_scores(self) -> list[ScoreLine]:
        """All lines of ``scores.jsonl``, under whichever signature."""
        path = self._checked("scores.jsonl")
        return checked_scores(read_whole(read_lines, path), self.protocol(), path)

    def _checked(self, name: str) -> Path:
        """The path of a file, which is as the manifest says, or absent and not listed."""
        self._check_weights()
        return checked_path(self._done, name)

    def _check_weights(self) -> None:
        """Raise a `UserError` if the folder is of other weights than those it lies beside; older versions did not record them."""
        manifest = read_manifest(self._done)
        if manifest is None or manifest.subject is None or (weights := self._weights()) is None:
            return
        if manifest.subject != weights:
            raise damaged(self._done, "this evaluation is of other weights than those of the run that it is in")
