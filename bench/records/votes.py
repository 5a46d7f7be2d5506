"""What a metric says of pairs of images on which people voted: the record that a report compares the two with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

from bench.core.files import write_json
from bench.core.manifest import seal, unbroken
from bench.core.values import digest
from bench.records.reading import damaged, read_record
from bench.records.scores import MetricRecord

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclasses.dataclass(frozen=True, slots=True)
class VotesRecord:
    """One metric's scores of N pairs with people's votes on them.

    Attributes:
        source: what the user called the data.
        data: digest of captions and images.
        labels: digest of the votes.
        metric: registered name.
        scorer: the metric's signature; see `bench.records.scores.MetricRecord.scorer`.
        prompts: the number of each pair's caption, N; pairs with the same caption have the same number.
        label_0: 1 where image 0 is preferred, 0 where image 1 is, 0.5 for a tie, N.
        scores: raw scores of image 0 and image 1, N.
    """

    source: str
    data: str
    labels: str
    metric: str
    scorer: str
    prompts: Sequence[int]
    label_0: Sequence[Finite]
    scores: Sequence[tuple[Finite, Finite]]


class JudgedVotes(Protocol):
    """Pairs on which people voted, and what metrics say of them."""

    def judged(
        self, runs: Path, model: str, prompts: Sequence[str], metrics: Sequence[MetricRecord]
    ) -> Iterable[VotesRecord]:
        """One record per metric of a report; see `bench.Votes`."""


def votes_path(folder: Path, data: str, labels: str, metric: str, scorer: str) -> Path:
    """Where a record is kept, by what decides it; see `VotesRecord`."""
    return folder / f"{digest([data, labels])}-{metric}-{scorer}.json"


def write_votes(path: Path, record: VotesRecord) -> None:
    """Write a record with its seal."""
    write_json(path, dataclasses.asdict(record))
    seal(path)


def read_votes(path: Path) -> VotesRecord:
    """A sealed record.

    Raises:
        UserError: it is damaged.
    """
    record = read_record(VotesRecord, unbroken(path))
    if not len(record.prompts) == len(record.label_0) == len(record.scores):
        raise damaged(path, "prompts, label_0 and scores must be of one length")
    if not set(record.label_0) <= {0, 0.5, 1}:
        raise damaged(path, "label_0: 0, 0.5 or 1 is required")
    return record
