"""Records of scores: what a metric is, an image with its prompt, and the scores of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.records.protocol import scorer_signature

Ties = Literal["half", "agree", "disagree", "threshold"]
"""How ties count where a metric is compared with people's votes, after the paper of the metric.

``half``: pairs that people call a tie are left out, equal scores count 1/2.  ``agree``: only opposite orders are wrong, so a tie on
either side counts 1 (HPSv2's evaluation).  ``disagree``: pairs that people call a tie are left out, equal scores count 0
(ImageReward's evaluation).  ``threshold``: scores whose preference probabilities are close are a tie, which counts 1 where people
call it one too and 1/2 otherwise (PickScore's evaluation); needs scores whose difference is the log odds of a preference.
"""


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
        ties: how ties count where it is compared with people's votes.
    """

    title: str
    raw_range: str
    unit: str
    source: str
    published: str = ""
    display_factor: float = 1.0
    higher_is_better: bool = True
    conventions: str = ""
    ties: Ties = "half"


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
