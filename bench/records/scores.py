"""Records of scores: what a metric is, an image with its prompt, and the scores of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records.protocol import scorer_signature


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a reader must know about a metric's scores; records keep it with the scores.

    Attributes:
        title: the name in tables.
        raw_range: where raw scores lie, for example ``-1 to 1``.
        unit: unit of the raw score, for example ``cosine``.
        display_factor: what papers multiply by; tables show ``raw * display_factor``.
        published: typical values of published checkpoints, in words, in displayed units.
        source: paper and code.
        higher_is_better: the direction.
        conventions: other scales in which people report the same score, in words.
    """

    title: str
    raw_range: str
    unit: str
    source: str
    published: str = ""
    display_factor: float = 1.0
    higher_is_better: bool = True
    conventions: str = ""


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """A metric with which images of an evaluation were scored.

    Attributes:
        name: registered name.
        signature: hash of the protocol, the name and the identity, 12 hex digits.
        identity: version, weights digest, preprocessing.
        info: what a reader must know about the metric.
    """

    name: str
    signature: str
    identity: Mapping[str, Any]
    info: MetricInfo

    @property
    def scorer(self) -> str:
        """The scorer's own hash, the same under other prompts and settings; what ``bench score`` calls its signature."""
        return scorer_signature(self.name, self.identity)


@dataclass(frozen=True, slots=True)
class PromptedImage:
    """An image to score.

    Attributes:
        path: its file.
        prompt: what it is judged against.
        key: what identifies it in a record; the same fields for every image of a call, JSON values.
    """

    path: Path
    prompt: str
    key: Mapping[str, Any]

    @property
    def place(self) -> tuple[Any, ...]:
        """The key's values."""
        return tuple(self.key.values())


@dataclass(frozen=True, slots=True)
class MetricScores:
    """One metric's scores of a folder.

    Attributes:
        name: registered name.
        info: what a reader must know about the metric.
        signature: hash of name and identity, 12 hex digits.
        identity: version, weights digest, preprocessing.
        scores: raw, in the order of the readable images.
    """

    name: str
    info: MetricInfo
    signature: str
    identity: Mapping[str, Any]
    scores: Sequence[float]


@dataclass(frozen=True, slots=True)
class FolderScores:
    """A scored folder.

    Attributes:
        pictures: the images that could be read.
        unreadable: the reason for each file that could not be read.
        metrics: scores by metric, in the order requested.
    """

    pictures: Sequence[PromptedImage]
    unreadable: Mapping[str, str]
    metrics: Sequence[MetricScores]
