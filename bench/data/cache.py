"""Latents and text embeddings of the data, computed once per (data, encoders, size) and shared by every algorithm."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.core.chunks import batch_slices
from bench.core.files import sweep
from bench.core.images import resize_image
from bench.core.locks import exclusive
from bench.core.manifest import is_sealed
from bench.core.processes import ALONE, Processes
from bench.core.progress import Progress
from bench.data.buckets import TRAINING_SIZES, AspectRatios, HorizontalFlip, PictureSize
from bench.data.preferences import PreferenceData
from bench.data.sealed_rows import SealedRows, write_rows
from bench.models.family import ModelFamily, Posterior
from bench.models.framing import Framing, Size, covering

SHARD = 512
BATCH = 16
OPEN = 64
"""Shards mapped at the same time; a process may often open only about a thousand files."""

KINDS = ("posterior", "text", "negative")
"""What the names of the files begin with; scores and features of the same data have their own."""

Orientation = Literal["upright", "mirrored"]

ORIENTATIONS: Mapping[HorizontalFlip, Sequence[Orientation]] = {
    "none": ("upright",),
    "image": ("upright", "mirrored"),
    "pair": ("upright", "mirrored"),
}
"""What is encoded of every image, by how images are mirrored in training."""

Arrays = dict[str, NDArray[np.float32]]
"""Encoded rows by name, each with the rows as its leading axis."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    """A shard of each of some arrays, which are encoded together.

    Attributes:
        paths: the shards by the arrays' names.
        rows: the rows of the arrays.
        encode: returns some of these rows.
    """

    paths: Mapping[str, Path]
    rows: slice
    encode: Callable[[slice], Arrays]

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self.rows.stop - self.rows.start)

    @property
    def made(self) -> bool:
        """Whether the shards are there."""
        return all(is_sealed(path) for path in self.paths.values())

    def make(self) -> None:
        """Encode the rows and write the shards."""
        parts = [
            self.encode(slice(self.rows.start + part.start, self.rows.start + part.stop))
            for part in batch_slices(self.count, BATCH)
        ]
        for name, path in self.paths.items():
            write_rows(path, np.concatenate([part[name] for part in parts]))


class EncodedCaptions:
    """Text embeddings of captions, memory-mapped from shards: all that training needs which reads no images.

    Shards are written one by one and renamed into place, so an interrupted encoding resumes; each has a seal, by
    which every row is checked as it is read.  The processes of one launch divide the shards among themselves; one launch at a time
    writes them, others wait, and then read them.

    Args:
        captions: the captions; the empty one is encoded too.
        folder: where the shards are; used only for this data, this resolution and the model's encoders.
        processes: those that encode together; each of them makes the same call.
    """

    def __init__(self, captions: Sequence[str], model: ModelFamily, folder: Path, processes: Processes = ALONE) -> None:
        self._model, self._folder, self._processes = model, folder, processes
        self._open = functools.lru_cache(OPEN)(SealedRows)
        different = sorted({*captions, ""})
        self._caption_row = {caption: row for row, caption in enumerate(different)}
        files = {name: f"text-{name}" for name in model.condition_names}
        texts = self._pieces(files, len(different), self._text_encoder(different))
        files = {name: f"negative-{name}" for name in model.condition_names}
        negative = self._pieces(files, 1, self._encode_negative)
        self._texts, self._negative = _shards(texts), _shards(negative)
        self._encode("captions", texts, negative)

    def size(self, row: int) -> Size:
        """Height and width in pixels of the images that are trained on: the model's own."""
        return self._model.resolution, self._model.resolution

    def posterior(self, rows: Sequence[int], mirrored: Tensor | None = None) -> Posterior:
        """Raise a ValueError, since no image was encoded."""
        raise ValueError("an algorithm that reads images must state Need.IMAGES or Need.PAIRS in its needs")

    def picture_condition(self, rows: Sequence[int], sides: Sequence[int], size: PictureSize) -> dict[str, Tensor]:
        """Raise a ValueError, since no image was encoded."""
        raise ValueError("an algorithm that reads images must state Need.IMAGES or Need.PAIRS in its needs")

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Text embeddings of captions of the data, or of the empty caption; each with a leading axis of B."""
        rows = [self._caption_row[caption] for caption in captions]
        return {name: self._gather(shards, rows) for name, shards in self._texts.items()}

    def negative(self, count: int) -> dict[str, Tensor]:
        """Embeddings of an empty negative prompt, as used by guidance in sampling; each with a leading axis of ``count``."""
        return {name: self._gather(shards, [0] * count) for name, shards in self._negative.items()}

    def _encode(self, what: str, *kinds: Sequence[_Piece]) -> None:
        """Make what is missing of some kinds of pieces, every process a part of each."""
        with self._processes.together(_writing(self._folder)):
            _make(what, [piece for kind in kinds for piece in self._processes.part(kind)])
        if missing := [piece for kind in kinds for piece in kind if not piece.made]:
            # The others' parts are in a folder of the same name on another machine.
            with _writing(self._folder):
                _make(what, missing)

    def _pieces(self, files: Mapping[str, str], count: int, encode: Callable[[slice], Arrays]) -> list[_Piece]:
        """The pieces of the arrays that ``encode`` returns by name; ``files`` names their files."""
        return [
            _Piece({name: self._folder / f"{file}-{rows.start:08d}.npy" for name, file in files.items()}, rows, encode)
            for rows in batch_slices(count, SHARD)
        ]

    def _gather(self, shards: Sequence[Path], rows: Sequence[int]) -> Tensor:
        found = {row: self._row(shards, row) for row in dict.fromkeys(rows)}
        return torch.from_numpy(np.stack([found[row] for row in rows]))

    def _row(self, shards: Sequence[Path], row: int) -> NDArray[np.float32]:
        return self._open(shards[row // SHARD])[row % SHARD]

    def _encode_negative(self, rows: slice) -> Arrays:
        return {name: value.float().cpu().numpy() for name, value in self._model.encode_negative([""]).items()}

    def _text_encoder(self, captions: Sequence[str]) -> Callable[[slice], Arrays]:
        def encode(rows: slice) -> Arrays:
            encoded = self._model.encode_text(captions[rows])
            return {name: value.float().cpu().numpy() for name, value in encoded.items()}

        return encode


class EncodedData(EncodedCaptions):
    """Posteriors of images besides the text embeddings of their captions.

    Args:
        data: the images and captions.
        folder: see `EncodedCaptions`.
        aspect_ratios: whether each row's images are cropped to a square or to the nearest bucket.
        horizontal_flip: how images are mirrored; unless they never are, mirrored images are encoded too, since their latents
            are not the mirrored latents.
        processes: see `EncodedCaptions`.
    """

    def __init__(
        self,
        data: PreferenceData,
        model: ModelFamily,
        folder: Path,
        aspect_ratios: AspectRatios = "square",
        horizontal_flip: HorizontalFlip = "none",
        processes: Processes = ALONE,
    ) -> None:
        super().__init__(data.captions, model, folder, processes)
        self._data, self._sizes = data, TRAINING_SIZES[aspect_ratios](data, model)
        self._place = np.empty(len(data), dtype=np.int64)
        images = {side: self._image_pieces(aspect_ratios, side) for side in ORIENTATIONS[horizontal_flip]}
        self._posteriors = {
            side: {size: _shards(pieces)["posterior"] for size, pieces in by_size.items()}
            for side, by_size in images.items()
        }
        self._encode("pairs", [piece for by_size in images.values() for pieces in by_size.values() for piece in pieces])

    def size(self, row: int) -> Size:
        """Height and width in pixels that the images of a row are cropped to."""
        height, width = self._sizes[row].tolist()
        return height, width

    def posterior(self, rows: Sequence[int], mirrored: Tensor | None = None) -> Posterior:
        """Posterior of all images of some rows of one size; float32, (B, K, C, h, w), K = 2 for pairs.

        Args:
            mirrored: which images are mirrored, bool, (B, K); None for none of them.
        """
        count = self._data.width
        chosen = [[False] * count] * len(rows) if mirrored is None else mirrored.tolist()
        found = [
            self._row(self._posteriors["mirrored" if flip else "upright"][self.size(row)], int(self._place[row]))[image]
            for row, flips in zip(rows, chosen, strict=True)
            for image, flip in enumerate(flips)
        ]
        stacked = torch.from_numpy(np.stack(found))
        return Posterior(*stacked.unflatten(0, (len(rows), count)).unbind(2))

    def picture_condition(self, rows: Sequence[int], sides: Sequence[int], size: PictureSize) -> dict[str, Tensor]:
        """Size and crop conditioning for one image of each row; each with a leading axis of B.

        Args:
            sides: which image of each row.
            size: ``true``, or ``nominal``, as if images were uncropped and of the size they are cropped to.
        """
        targets = [self.size(row) for row in rows]
        if size == "nominal" or not self._model.picture_condition(Framing.whole(targets[0])):
            framings = [Framing.whole(target) for target in targets]
        else:
            originals = [self._data.size(row, side) for row, side in zip(rows, sides, strict=True)]
            framings = [Framing.centre(original, target) for original, target in zip(originals, targets, strict=True)]
        conditioning = [self._model.picture_condition(framing) for framing in framings]
        return {name: torch.stack([each[name] for each in conditioning]) for name in conditioning[0]}

    def _image_pieces(self, aspect_ratios: AspectRatios, side: Orientation) -> dict[Size, list[_Piece]]:
        """Pieces of the posteriors by size, (rows, K, 2, C, h, w), mean before deviation; places the rows within their size."""
        pieces = {}
        for height, width in np.unique(self._sizes, axis=0).tolist():
            rows = np.flatnonzero((self._sizes == (height, width)).all(1))
            self._place[rows] = np.arange(len(rows))
            files = {"posterior": f"posterior-{side}-{aspect_ratios}-{height}x{width}"}
            encode = self._pairs_encoder(rows, (height, width), side)
            pieces[height, width] = self._pieces(files, len(rows), encode)
        return pieces

    def _pairs_encoder(self, rows: NDArray[np.int64], size: Size, side: Orientation) -> Callable[[slice], Arrays]:
        count = self._data.width

        def encode(places: slice) -> Arrays:
            pixels = torch.stack([to_pixels(image, size) for image in self._data.images(rows[places].tolist())])
            found = self._model.encode_images(pixels.flip(-1) if side == "mirrored" else pixels)
            both = torch.stack(found, dim=1).float().cpu()
            return {"posterior": both.unflatten(0, (-1, count)).numpy()}

        return encode


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Hold a folder for its shards, without what a killed process has left of some."""
    with exclusive(folder / ".lock", f"encodes the data in {folder}", wait=True):
        for kind in KINDS:
            sweep(folder, f"{kind}-*")
        yield


def _make(what: str, pieces: Sequence[_Piece]) -> None:
    """Make the pieces that are not there; ``what`` they hold is shown."""
    with Progress(f"encoding {what}", total=sum(piece.count for piece in pieces)) as progress:
        for piece in pieces:
            if piece.made:
                progress.found(piece.count)
                continue
            piece.make()
            progress.advance(piece.count)


def _shards(pieces: Sequence[_Piece]) -> dict[str, list[Path]]:
    """The shards of some arrays by name, in the order of their rows."""
    return {name: [piece.paths[name] for piece in pieces] for name in pieces[0].paths}


def to_pixels(image: Image.Image, target: Size) -> Tensor:
    """Resize to cover ``target`` (bilinear), crop the centre; float32 in [-1, 1], (3, *target)."""
    size = (image.height, image.width)
    resized = covering(size, target)
    if resized != size:
        image = resize_image(image, resized[::-1], Image.Resampling.BILINEAR)
    top, left = Framing.centre(size, target).corner
    array = np.asarray(image.crop((left, top, left + target[1], top + target[0])), dtype=np.float32)
    return torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1)
