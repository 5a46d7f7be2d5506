"""Preference pairs in memory."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.core.images import open_image
from bench.data.lazy import PickedImages
from bench.data.shuffling import Shuffle
from bench.data.survey import RowsDigest
from bench.records.config import DataReport


@dataclasses.dataclass(frozen=True)
class PreferenceData:
    """Preference pairs, or lists of K images per caption; frozen, with methods that return changed copies.

    Images stay encoded on disk until they are read.  N is the number of rows.

    Attributes:
        captions: N captions.
        encoded: for each caption its K encoded images; image 0 and image 1 for a pair.
        preference_0: P(image 0 is preferred), float64, (N,); 0 or 1 for a vote, NaN without labels.
        scores: scores of the images by name, float64, (N, K) each.
        columns: other values of each row by name, floating, (N, ...) each.
        sources: names of the generator of each image, K per row; None if the data does not say.
        judges: names of the metrics that decided the labels, as far as the data says; empty for human labels.
        sizes: height and width of the images in pixels, int32, (N, K, 2); None if unknown.
        digest: SHA-256 of captions and images, shortened to 16 hex digits; labels are not part of it; caches are keyed by it.
        report: what was found when the data was read.
        shuffle: how the preferences of a placebo are shuffled, already in labels and scores; `PrepareContext` applies it to the
            scores that it computes.  None for preferences as given.
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
    shuffle: Shuffle | None = None

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def labels_digest(self) -> str:
        """SHA-256 of labels, scores, columns and sources, shortened to 16 hex digits."""
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
        """One image of a row, RGB; see `bench.core.images.open_image`.

        Raises:
            UnreadableImageError: the bytes do not hold an image.
        """
        return open_image(self.encoded[row][side]).convert("RGB")

    def images(self, rows: Iterable[int]) -> list[Image.Image]:
        """All images of some rows, RGB, those of a row together; each row is read once, whatever its number of images.

        Raises:
            UnreadableImageError: the bytes of one do not hold an image.
        """
        return [open_image(encoded).convert("RGB") for row in rows for encoded in self.encoded[row]]

    def size(self, row: int, side: int) -> tuple[int, int]:
        """Height and width in pixels of one image of a row, as it is shown."""
        if self.sizes is not None:
            height, width = self.sizes[row, side].tolist()
            return height, width
        image = self.image(row, side)
        return image.height, image.width

    def with_preference(self, preference_0: NDArray[np.float64]) -> PreferenceData:
        """The same pairs with other labels: P(image 0 is preferred), float64, (N,)."""
        return dataclasses.replace(self, preference_0=preference_0)

    def with_scores(self, **scores: NDArray[np.float64]) -> PreferenceData:
        """The same images with more scores by name, float64, (N, K) each; ``PairBatch.scores`` holds them."""
        return dataclasses.replace(self, scores={**self.scores, **scores})

    def shuffled(self, seed: int) -> PreferenceData:
        """The same images with preferences that say nothing about them: labels and scores take another image of the same row.

        Raises:
            ValueError: the preferences are shuffled already; a second time could restore them.
        """
        if self.shuffle is not None:
            raise ValueError("the preferences are shuffled already")
        shuffle = Shuffle(seed)
        scores = {name: shuffle.scores(values) for name, values in self.scores.items()}
        labels = shuffle.preference(self.preference_0) if self.width == 2 else self.preference_0
        return dataclasses.replace(self, preference_0=labels, scores=scores, shuffle=shuffle)

    def pick(self, rows: NDArray[np.int64], images: NDArray[np.int64]) -> PreferenceData:
        """Unlabelled data of some images of some rows, without scores and columns; images are read on access.

        Of a placebo, scores of the new rows are shuffled anew.

        Args:
            rows: row numbers, (M,).
            images: which images of each, (M, K).
        """
        captions = [self.captions[row] for row in rows]
        picked = data_of(captions, PickedImages(self.encoded, rows, images), self.report.source)
        sizes = None if self.sizes is None else self.sizes[rows[:, None], images]
        return dataclasses.replace(picked, sizes=sizes, shuffle=self.shuffle)

    def with_columns(self, **columns: NDArray[np.floating[Any]]) -> PreferenceData:
        """The same pairs with more values of each row by name, floating, (N, ...) each; ``PairBatch.columns`` holds them."""
        return dataclasses.replace(self, columns={**self.columns, **columns})


def data_of(captions: Sequence[str], encoded: Sequence[tuple[bytes, ...]], source: str) -> PreferenceData:
    """Unlabelled data of given images, with the digest that reading it from disk would have; images are read in order, once."""
    return PreferenceData(
        captions=captions,
        encoded=encoded,
        preference_0=np.full(len(captions), np.nan),
        digest=_digest(captions, encoded),
        report=DataReport(source, len(captions), len(captions), 0, ()),
    )


def _digest(captions: Sequence[str], encoded: Sequence[tuple[bytes, ...]]) -> str:
    digest = RowsDigest()
    for caption, images in zip(captions, encoded, strict=True):
        digest.add(caption, images)
    return digest.value()
