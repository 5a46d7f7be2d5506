"""One pass over all images: which can be decoded, how large they are, which rows repeat, and the digest of captions and images."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.core.files import replace_file, sweep
from bench.core.images import UnreadableImageError, open_image
from bench.core.locks import exclusive
from bench.core.manifest import is_sealed, seal, unbroken
from bench.core.progress import Progress
from bench.core.values import digest
from bench.data.sources.base import Source

VERSION = 3
"""Increment it when a survey of the same files would have another result."""
UNDECODABLE = (0, 0)
"""The size of an image that cannot be decoded."""


@dataclasses.dataclass(frozen=True, slots=True)
class Survey:
    """What a pass over some rows of a source found.

    Attributes:
        digest: digest of captions and images of the rows whose images can all be decoded; see `RowsDigest`.
        sizes: height and width of every image in pixels, int32, (N, K, 2); 0 where it cannot be decoded.
        rows: hash of each row's caption and images, uint64, (N,).
        identical_images: whether all images of the row are the same file, (N,).
    """

    digest: str
    sizes: NDArray[np.int32]
    rows: NDArray[np.uint64]
    identical_images: NDArray[np.bool_]

    @property
    def decodable(self) -> NDArray[np.bool_]:
        """Whether all images of the row can be decoded, (N,)."""
        return np.asarray((self.sizes > 0).all((1, 2)))


class RowsDigest:
    """SHA-256 of captions and images in order, each preceded by its length."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, caption: str, images: Iterable[bytes]) -> None:
        """Add the next row."""
        for part in (caption.encode(), *images):
            self._hash.update(len(part).to_bytes(8, "little"))
            self._hash.update(part)

    def value(self) -> str:
        """The digest of all rows so far, shortened to 16 hex digits."""
        return self._hash.hexdigest()[:16]


def survey_rows(source: Source, captions: Sequence[str], rows: NDArray[np.int64], cache: Path | None) -> Survey:
    """Survey some rows of a source, one at a time, so memory does not grow with the images.

    Args:
        captions: captions of these rows.
        rows: row numbers, in order, (N,).
        cache: folder in which surveys are kept, keyed by the files' sizes and modification times; None caches nothing.
    """
    if cache is None:
        return _scan_images(source, captions, rows)
    key = digest([VERSION, source.stamp, len(rows), hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()])
    kept = cache / f"{key}.npz"
    if is_sealed(kept):
        return _load(unbroken(kept))
    # Taking the lock reports an unwritable cache before the pass, which may take hours.
    with exclusive(kept.with_suffix(".lock"), f"reads the same data for {kept}", wait=True):
        if is_sealed(kept):
            return _load(unbroken(kept))
        sweep(kept.parent, f"{kept.name}*")
        found = _scan_images(source, captions, rows)
        replace_file(kept, lambda partial: _save(partial, found))
        seal(kept)
    return found


def _scan_images(source: Source, captions: Sequence[str], rows: NDArray[np.int64]) -> Survey:
    sizes = np.zeros((len(rows), len(source.image_names), 2), dtype=np.int32)
    hashes, identical_images = np.zeros(len(rows), dtype=np.uint64), np.zeros(len(rows), dtype=np.bool_)
    whole = RowsDigest()
    with Progress(f"reading {len(rows)} rows", total=len(rows)) as progress:
        for place, row in enumerate(rows.tolist()):
            images, caption = source.images(row), captions[place]
            found = [_decoded_size(image) for image in images]
            if UNDECODABLE not in found:
                whole.add(caption, images)
            sizes[place] = np.reshape(found, (-1, 2))
            own = hashlib.blake2b(digest_size=8)
            for part in (caption.encode(), *images):
                own.update(len(part).to_bytes(8, "little"))
                own.update(part)
            hashes[place] = int.from_bytes(own.digest(), "little")
            identical_images[place] = len(images) > 1 and len(set(images)) == 1
            progress.advance()
    return Survey(whole.value(), sizes, hashes, identical_images)


def _decoded_size(encoded: bytes) -> tuple[int, int]:
    try:
        image = open_image(encoded)
    except UnreadableImageError:
        return UNDECODABLE
    return image.height, image.width


def _save(path: Path, survey: Survey) -> None:
    with path.open("wb") as stream:
        # the key "alike" is an older name: renaming it would repeat every cached pass, which may take hours
        np.savez(stream, digest=survey.digest, sizes=survey.sizes, rows=survey.rows, alike=survey.identical_images)


def _load(path: Path) -> Survey:
    with np.load(path, allow_pickle=False) as values:
        return Survey(str(values["digest"]), values["sizes"], values["rows"], values["alike"])
