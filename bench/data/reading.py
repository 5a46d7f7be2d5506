"""Preference data from disk: every row is inspected, ties and undecodable rows are left out and counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.core.errors import UserError, did_you_mean, listed
from bench.data.labels import TIE, read_labels
from bench.data.lazy import StoredImages, StoredTexts
from bench.data.preferences import PreferenceData
from bench.data.sources import open_source
from bench.data.sources.base import Source, numbered
from bench.data.sources.labelled import LABEL
from bench.data.survey import Survey, survey_rows
from bench.records.config import DataReport

CAPTION = "caption"
"""The only column of data without images, for algorithms that sample their own."""
REQUIRED = (CAPTION, "jpg_0")
FACTS = 4096
"""Rows converted to Python objects at a time."""
MOST_UNDECODABLE = 0.01
"""Largest share of the rows that are looked at whose images may be undecodable; more than that is refused."""


@dataclasses.dataclass(frozen=True)
class InspectedData:
    """All rows of a source after inspection, before the checks that may refuse them.

    Attributes:
        name: what the user called the data.
        labels: ``label_0`` of every row, float64, NaN without labels.
        rows: row numbers of those that are looked at, (N,).
        captions: captions of these rows.
        survey: survey of these rows.
    """

    name: str
    source: Source
    labels: NDArray[np.float64]
    rows: NDArray[np.int64]
    captions: StoredTexts
    survey: Survey

    @property
    def kept(self) -> NDArray[np.int64]:
        """Row numbers of the pairs: neither ties nor undecodable."""
        return np.asarray(self.rows[self.survey.decodable])

    @property
    def report(self) -> DataReport:
        """Counts of the rows that are kept, dropped and skipped."""
        broken = np.flatnonzero(~self.survey.decodable)
        sides = ((sizes == 0).any(1).argmax() for sizes in self.survey.sizes[broken])
        undecodable = tuple(f"row {row} jpg_{side}" for row, side in zip(self.rows[broken], sides, strict=True))
        pairs = len(self.rows) - len(broken)
        ties = int(np.count_nonzero(self.labels == TIE) - np.count_nonzero(self.labels[self.rows] == TIE))
        return DataReport(self.name, len(self.labels), pairs, ties, undecodable)

    def refuse_unusable(self) -> None:
        """Raise a `UserError` when too many rows are undecodable, or no pair is left."""
        report, looked_at = self.report, len(self.rows)
        if len(report.undecodable) > MOST_UNDECODABLE * looked_at:
            which = "rows" if looked_at == report.rows else "rows that are looked at"
            first = int(np.flatnonzero(~self.survey.decodable)[0])
            side = int((self.survey.sizes[first] == 0).any(1).argmax())
            raise UserError(
                f"{self.name}: {len(report.undecodable)} of {looked_at} {which} have images that cannot be decoded "
                f"({', '.join(report.undecodable[:5])}; {report.undecodable[0]}: {self.source.problem(int(self.rows[first]), side)}); more "
                "than 1 % is refused; repair the data"
            )
        if not report.pairs:
            raise UserError(
                f"{self.name}: no preference pair is left of {report.rows} rows ({report.ties_dropped} ties); "
                "give other data"
            )


def inspect_data(source: Source, name: str, cache: Path | None, limit: int | None = None) -> InspectedData:
    """Inspect every row of a source: its label, its caption, and whether its images can be decoded.

    Args:
        name: what the user called the data.
        cache: folder that caches the pass over the images, so a second call on the same files is immediate.
        limit: how many rows that are not ties are inspected at most, from the first; None means all.

    Raises:
        UserError: a missing column or caption, or a label other than 0, 0.5 and 1.
    """
    labels = _labels(source, name)
    return _inspected(source, name, labels, np.flatnonzero(labels != TIE)[:limit], cache)


def inspect_votes(source: Source, name: str, cache: Path | None) -> InspectedData:
    """The same for all rows, ties among them, as judges are compared with.

    Raises:
        UserError: see `inspect_data`.
    """
    labels = _labels(source, name)
    return _inspected(source, name, labels, np.arange(len(labels)), cache)


def count_pairs(source: Source, name: str, limit: int | None = None) -> tuple[int, int]:
    """How many pairs there are and how many different captions they have, if all images can be decoded; no image is read.

    Args:
        name: what the user called the data.
        limit: see `inspect_data`.

    Raises:
        UserError: see `inspect_data`; or there are only ties.
    """
    labels = _labels(source, name)
    rows = np.flatnonzero(labels != TIE)[:limit]
    if not len(rows):
        raise UserError(f"{name}: no preference pair is left of {len(labels)} rows; give other data")
    return len(rows), len(set(_captions(source, rows, name)))


def read_preferences(
    source: str | Path,
    columns: Mapping[str, str] | None = None,
    cache: Path | None = None,
    limit: int | None = None,
) -> PreferenceData:
    """Read preference pairs with Pick-a-Pic's columns; see `bench.data.sources.open_source` for the formats.

    Data whose only column is ``caption`` have no images, which algorithms that sample their own do not read.
    ``label_0`` may be missing: then the data is unlabelled, and more than two images (``jpg_2``, ...) make lists.  Ties (label
    0.5) are dropped and counted.  Rows whose images cannot be decoded are skipped, counted and named.  ``source_0``, ... or
    Pick-a-Pic's ``model_0``, ... name what generated the images; ``score_<name>_0``, ... are scores.  Repeated rows are kept.
    Images stay on disk and are read on access.

    Args:
        columns: names of the columns in the data by their names here.
        cache: see `inspect_data`.
        limit: see `inspect_data`.

    Raises:
        UserError: no such data, a missing column, a label other than 0, 0.5 and 1, no pair left, or more than 1 % of the
            rows that are looked at undecodable.
    """
    inspected = inspect_data(open_source(source, columns), str(source), cache, limit)
    inspected.refuse_unusable()
    return kept_data(inspected)


def kept_data(inspected: InspectedData) -> PreferenceData:
    """The pairs that remain after inspection."""
    source, kept, decodable = inspected.source, inspected.kept, inspected.survey.decodable
    return PreferenceData(
        captions=inspected.captions if decodable.all() else _captions(source, kept, inspected.name),
        encoded=StoredImages(source, kept),
        preference_0=inspected.labels[kept],
        digest=inspected.survey.digest,
        report=inspected.report,
        scores=read_scores(source, kept),
        sources=_generators(source, kept),
        judges=_judges(source.provenance),
        sizes=inspected.survey.sizes if decodable.all() else inspected.survey.sizes[decodable],
    )


def _labels(source: Source, name: str) -> NDArray[np.float64]:
    _check_columns(source, name)
    return read_labels(source, name)


def _inspected(
    source: Source, name: str, labels: NDArray[np.float64], rows: NDArray[np.int64], cache: Path | None
) -> InspectedData:
    captions = _captions(source, rows, name)
    return InspectedData(name, source, labels, rows, captions, survey_rows(source, captions, rows, cache))


def _check_columns(source: Source, name: str) -> None:
    if list(source.names) == [CAPTION]:
        return
    # a label without a second image, or two images with a label spelt differently, are mistakes, not unlabelled data
    wanted = [*REQUIRED, "jpg_1"] if LABEL in source.names else list(REQUIRED)
    for column in wanted:
        if column not in source.names:
            hint = did_you_mean(column, source.names)
            raise UserError(
                f"{name}: column {column!r} is missing; {hint}it has {listed(source.names)}; rename columns with --columns"
            )


def _captions(source: Source, rows: NDArray[np.int64], name: str) -> StoredTexts:
    column = source.facts(["caption"])["caption"]
    if column.null_count:
        missing = column.is_null().index(True).as_py()
        raise UserError(f"{name}: caption is missing in row {missing}; every pair needs its caption")
    column = column.cast(pa.string())
    return StoredTexts(column if len(rows) == len(column) else column.take(rows))


def _generators(source: Source, kept: NDArray[np.int64]) -> list[tuple[str, ...]] | None:
    """Names of what generated the images, K per row; equal rows share one tuple."""
    names = numbered(source.names, "source") or numbered(source.names, "model")
    if not names:
        return None
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    found = []
    table = source.facts(names)
    if len(kept) < len(source):
        table = table.take(kept)
    for batch in table.to_batches(FACTS):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            makers = tuple(map(str, row))
            found.append(known.setdefault(makers, makers))
    return found


def _judges(provenance: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The metrics named by the last step that set labels."""
    judges = [tuple(step["judges"]) for step in provenance if step.get("judges")]
    return judges[-1] if judges else ()


def read_scores(source: Source, kept: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Scores by name, (N, K) each, for the names for which every image has a score.

    Raises:
        UserError: one is missing, or not a finite number.
    """
    stems = [name.removesuffix("_0") for name in source.names if name.startswith("score_") and name.endswith("_0")]
    columns = {stem.removeprefix("score_"): numbered(source.names, stem) for stem in stems}
    return {
        name: np.stack([_finite(source, column, kept) for column in found], 1)
        for name, found in columns.items()
        if len(found) == len(source.image_names)
    }


def _finite(source: Source, column: str, kept: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values of a score column in some rows.

    Raises:
        UserError: one is missing, or not a finite number.
    """
    values = np.asarray(source.facts([column])[column].to_numpy(), dtype=np.float64)[kept]
    if len(wrong := np.flatnonzero(~np.isfinite(values))):
        raise UserError(
            f"{source.files[0]}: column {column!r} holds {values[wrong[0]]} in row {kept[wrong[0]]}, but scores must be finite "
            "numbers; repair or drop the column"
        )
    return values
