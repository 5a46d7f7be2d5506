"""Preference pairs on disk and in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from bench.core.errors import UserError, did_you_mean
from bench.data.lazy import PickedImages, StoredImages, StoredTexts
from bench.data.sources import open_source
from bench.data.sources.base import Source, numbered
from bench.data.sources.labelled import LABEL, TEXTS
from bench.data.survey import RowsDigest, Survey, decode, survey_rows
from bench.records.config import DataReport

REQUIRED = ("caption", "jpg_0")
LABELS = tuple(TEXTS.values())
FACTS = 4096
"""Rows of facts that become Python objects together."""
MOST_UNDECODABLE = 0.01
"""Largest share of rows whose images may be undecodable; more than that is refused."""


@dataclasses.dataclass(frozen=True)
class PreferenceData:
    """Preference pairs, or lists of K images per caption; frozen, with methods that return changed copies.

    Images stay encoded on disk until they are read.  N is the number of rows.

    Attributes:
        captions: N captions.
        encoded: for each caption its K encoded images; image 0 and image 1 for a pair.
        preference_0: P(image 0 is preferred), float64, (N,); 0 or 1 for a vote, NaN without labels.
        scores: scores of the images by name, float64, (N, K) each.
        columns: other facts about each row by name, floating, (N, ...) each.
        sources: names of what made each image, K for each row; None when the data does not say.
        judges: names of the metrics whose verdicts the labels are, as far as the data says; empty for people's.
        sizes: height and width of the images in pixels, int32, (N, K, 2); None when nobody has looked.
        digest: SHA-256 of captions and images, shortened to 16 hex digits; labels do not enter, caches are keyed by it.
        report: what reading did.
    """

    captions: Sequence[str]
    encoded: Sequence[tuple[bytes, ...]]
    preference_0: NDArray[np.float64]
    digest: str
    report: DataReport
    scores: Mapping[str, NDArray[np.float64]] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, NDArray[np.floating[Any]]] = dataclasses.field(default_factory=dict)
    sources: Sequence[tuple[str, ...]] | None = None
    judges: tuple[str, ...] = ()
    sizes: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def labels_digest(self) -> str:
        """SHA-256 of what training may learn from the images besides themselves, shortened to 16 hex digits."""
        digest = hashlib.sha256(np.ascontiguousarray(self.preference_0).tobytes())
        for name, values in sorted({**self.scores, **self.columns}.items()):
            digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        for row in self.sources or ():
            digest.update("\x1f".join(row).encode() + b"\n")
        return digest.hexdigest()[:16]

    @property
    def width(self) -> int:
        """K, the number of images of a caption; 2 for pairs."""
        return len(self.encoded[0])

    @property
    def labelled(self) -> bool:
        """Whether every row says which of two images is preferred."""
        return not bool(np.isnan(self.preference_0).any())

    def image(self, row: int, side: int) -> Image.Image:
        """One image of a row, decoded, RGB; raises what Pillow raises for bytes that are not an image."""
        return decode(self.encoded[row][side])

    def size(self, row: int, side: int) -> tuple[int, int]:
        """Height and width in pixels of one image of a row, without decoding it."""
        if self.sizes is not None:
            height, width = self.sizes[row, side].tolist()
            return height, width
        with Image.open(io.BytesIO(self.encoded[row][side])) as image:
            return image.height, image.width

    def with_preference(self, preference_0: NDArray[np.float64]) -> PreferenceData:
        """The same pairs with other labels: P(image 0 is preferred), float64, (N,)."""
        return dataclasses.replace(self, preference_0=preference_0)

    def with_scores(self, **scores: NDArray[np.float64]) -> PreferenceData:
        """The same images with more scores by name, float64, (N, K) each; ``PairBatch.scores`` holds them."""
        return dataclasses.replace(self, scores={**self.scores, **scores})

    def pick(self, rows: NDArray[np.int64], images: NDArray[np.int64]) -> PreferenceData:
        """Unlabelled data of some images of some rows, without scores and columns; images are read when asked for.

        Args:
            rows: row numbers, (M,).
            images: which images of each, (M, K).
        """
        captions = [self.captions[row] for row in rows]
        picked = data_of(captions, PickedImages(self.encoded, rows, images), self.report.source)
        return dataclasses.replace(picked, sizes=None if self.sizes is None else self.sizes[rows[:, None], images])

    def with_columns(self, **columns: NDArray[np.floating[Any]]) -> PreferenceData:
        """The same pairs with more facts about each row by name, floating, (N, ...) each; ``PairBatch.columns`` holds them."""
        return dataclasses.replace(self, columns={**self.columns, **columns})


def data_of(captions: Sequence[str], encoded: Sequence[tuple[bytes, ...]], source: str) -> PreferenceData:
    """Unlabelled data of given images, with the digest that reading it from disk would give; they are read in order, once."""
    return PreferenceData(
        captions=captions,
        encoded=encoded,
        preference_0=np.full(len(captions), np.nan),
        digest=_digest(captions, encoded),
        report=DataReport(source, len(captions), len(captions), 0, ()),
    )


@dataclasses.dataclass(frozen=True)
class InspectedData:
    """All rows of a source as the policy sees them, before it is decided whether they will do.

    Attributes:
        name: what the user called the data.
        labels: ``label_0`` of every row, float64, NaN without labels.
        rows: row numbers of those that are no ties, (N,).
        captions: of these rows.
        survey: of these rows.
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
        """What is kept and what is not."""
        broken = np.flatnonzero(~self.survey.decodable)
        sides = (self.survey.sizes[broken] == 0).any(2).argmax(1)
        undecodable = tuple(f"row {row} jpg_{side}" for row, side in zip(self.rows[broken], sides, strict=True))
        pairs = len(self.rows) - len(broken)
        return DataReport(self.name, len(self.labels), pairs, len(self.labels) - len(self.rows), undecodable)

    def refuse_unusable(self) -> None:
        """Raise a `UserError` when too many rows are undecodable, or no pair is left."""
        report = self.report
        if len(report.undecodable) > MOST_UNDECODABLE * report.rows:
            named = ", ".join(report.undecodable[:5])
            raise UserError(
                f"{self.name}: {len(report.undecodable)} of {report.rows} rows hold images that cannot be decoded "
                f"({named}, ...); more than 1 % is refused, repair the data"
            )
        if not report.pairs:
            raise UserError(
                f"{self.name}: no preference pair is left of {report.rows} rows ({report.ties_dropped} ties); "
                "give other data"
            )


def inspect_data(source: Source, name: str, cache: Path | None) -> InspectedData:
    """Look at every row of a source: its label, its caption, and whether its images can be decoded.

    Args:
        name: what the user called the data.
        cache: folder in which the pass over the images is kept, so that a second call on the same files starts at once.

    Raises:
        UserError: a missing column or caption, or a label other than 0, 0.5 and 1.
    """
    _check_columns(source, name)
    labels = _labels(source, name)
    rows = np.flatnonzero(labels != 0.5)
    captions = _captions(source, rows, name)
    return InspectedData(name, source, labels, rows, captions, survey_rows(source, captions, rows, cache))


def read_preferences(
    source: str | Path, columns: Mapping[str, str] | None = None, cache: Path | None = None
) -> PreferenceData:
    """Read preference pairs with Pick-a-Pic's columns; see `bench.data.sources.open_source` for where from.

    ``label_0`` may be missing: then the data is unlabelled, and more than two images (``jpg_2``, ...) make lists.  Ties (label
    0.5) are dropped and counted.  Rows whose images cannot be decoded are skipped, counted and named.  ``source_0``, ... or
    Pick-a-Pic's ``model_0``, ... name what made the images; ``score_<name>_0``, ... are scores.  Repeated rows are kept.
    Images stay on disk and are read when asked for.

    Args:
        columns: names of the columns there by their names here.
        cache: see `inspect_data`.

    Raises:
        UserError: no such data, a missing column, a label other than 0, 0.5 and 1, no pair left, or more than 1 % of the
            rows undecodable.
    """
    inspected = inspect_data(open_source(source, columns), str(source), cache)
    inspected.refuse_unusable()
    return kept_data(inspected)


def kept_data(inspected: InspectedData) -> PreferenceData:
    """The pairs that the policy keeps."""
    source, kept, decodable = inspected.source, inspected.kept, inspected.survey.decodable
    return PreferenceData(
        captions=inspected.captions if decodable.all() else _captions(source, kept, inspected.name),
        encoded=StoredImages(source, kept),
        preference_0=inspected.labels[kept],
        digest=inspected.survey.digest,
        report=inspected.report,
        scores=_scores(source, kept),
        sources=_generators(source, kept),
        judges=_judges(source.provenance),
        sizes=inspected.survey.sizes if decodable.all() else inspected.survey.sizes[decodable],
    )


def _check_columns(source: Source, name: str) -> None:
    # a label without a second image, or two images with a label spelt differently, are mistakes, not unlabelled data
    wanted = [*REQUIRED, "jpg_1"] if LABEL in source.names else list(REQUIRED)
    for column in wanted:
        if column not in source.names:
            hint = did_you_mean(column, source.names)
            has = ", ".join(source.names) or "none"
            raise UserError(f"{name}: column {column!r} is missing; {hint}it has {has}; --columns gives it other names")


def _labels(source: Source, name: str) -> NDArray[np.float64]:
    if LABEL not in source.names:
        return np.full(len(source), np.nan)
    column = source.facts([LABEL])[LABEL]
    try:
        labels = np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{name}: label_0 holds no numbers; labels must be 0, 0.5 (a tie) or 1") from None
    wrong = np.flatnonzero(~np.isin(labels, LABELS))
    if len(wrong):
        raise UserError(f"{name}: label_0 is {labels[wrong[0]]} in row {wrong[0]}; labels must be 0, 0.5 (a tie) or 1")
    return labels


def _captions(source: Source, rows: NDArray[np.int64], name: str) -> StoredTexts:
    column = source.facts(["caption"])["caption"]
    if column.null_count:
        missing = column.is_null().index(True).as_py()
        raise UserError(f"{name}: caption is missing in row {missing}; every pair needs its caption")
    column = column.cast(pa.string())
    return StoredTexts(column if len(rows) == len(column) else column.take(rows))


def _generators(source: Source, kept: NDArray[np.int64]) -> list[tuple[str, ...]] | None:
    """Names of what made the images, K a row; equal rows share one tuple."""
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
    """The metrics named by the last step that gave labels."""
    judges = [tuple(step["judges"]) for step in provenance if step.get("judges")]
    return judges[-1] if judges else ()


def _scores(source: Source, kept: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Scores by name, (N, K) each: of the names for which every image has one."""
    stems = [name.removesuffix("_0") for name in source.names if name.startswith("score_") and name.endswith("_0")]
    columns = {stem.removeprefix("score_"): numbered(source.names, stem) for stem in stems}
    return {
        name: np.stack(
            [np.asarray(column.to_numpy(), dtype=np.float64)[kept] for column in source.facts(found).columns], 1
        )
        for name, found in columns.items()
        if len(found) == len(source.image_names)
    }


def _digest(captions: Sequence[str], encoded: Sequence[tuple[bytes, ...]]) -> str:
    digest = RowsDigest()
    for caption, images in zip(captions, encoded, strict=True):
        digest.add(caption, images)
    return digest.value()
