"""Latents and text embeddings of the data, computed once per (data, encoders, size) and shared by every algorithm."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.core.chunks import batch_slices
from bench.core.files import sweep, write_array
from bench.core.images import resize_image
from bench.core.locks import exclusive
from bench.core.manifest import is_sealed, seal, unbroken
from bench.core.progress import Progress
from bench.data.buckets import TRAINING_SIZES, AspectRatios, HorizontalFlip, PictureSize
from bench.data.preferences import PreferenceData
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
"""What is encoded of every picture, by how pictures are mirrored in training."""

Arrays = dict[str, NDArray[np.float32]]
"""Encoded rows by name, each with the rows as its leading axis."""


class EncodedData:
    """Posteriors and text embeddings of preference pairs, memory-mapped from shards.

    Shards are written one by one and renamed into place, so an interrupted encoding resumes; each has a seal, which is
    checked when the shard is first opened.  One process at a time writes them; others wait, and then read them.

    Args:
        folder: where the shards are; used only for this data, this resolution and the model's encoders.
        aspect_ratios: whether each row's images are cropped to a square or to the nearest bucket.
        horizontal_flip: how pictures are mirrored; unless they never are, mirrored pictures are encoded too, since their latents
            are not the mirrored latents.
    """

    def __init__(
        self,
        data: PreferenceData,
        model: ModelFamily,
        folder: Path,
        aspect_ratios: AspectRatios = "square",
        horizontal_flip: HorizontalFlip = "none",
    ) -> None:
        self._data, self._model, self._folder = data, model, folder
        self._sizes = TRAINING_SIZES[aspect_ratios](data, model)
        self._open = functools.lru_cache(OPEN)(lambda shard: np.load(unbroken(shard), mmap_mode="r"))
        captions = sorted({*data.captions, ""})
        self._caption_row = {caption: row for row, caption in enumerate(captions)}
        sides = ORIENTATIONS[horizontal_flip]
        self._place = np.empty(len(data), dtype=np.int64)
        lock = exclusive(folder / ".lock", f"encodes the data in {folder}", wait=True)
        with lock, Progress("encoding pairs", total=len(sides) * len(data) + len(captions) + 1) as progress:
            for kind in KINDS:
                sweep(folder, f"{kind}-*")
            self._posteriors = {side: self._encode_sizes(aspect_ratios, side, progress) for side in sides}
            files = {name: f"text-{name}" for name in model.condition_names}
            self._texts = self._shards(files, len(captions), self._text_encoder(captions), progress)
            files = {name: f"negative-{name}" for name in model.condition_names}
            self._negative = self._shards(files, 1, self._encode_negative, progress)

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

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Text embeddings of captions of the data, or of the empty caption; each with a leading axis of B."""
        rows = [self._caption_row[caption] for caption in captions]
        return {name: self._gather(shards, rows) for name, shards in self._texts.items()}

    def negative(self, count: int) -> dict[str, Tensor]:
        """Embeddings of an empty negative prompt, as used by guidance in sampling; each with a leading axis of ``count``."""
        return {name: self._gather(shards, [0] * count) for name, shards in self._negative.items()}

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

    def _shards(
        self, files: Mapping[str, str], count: int, encode: Callable[[slice], Arrays], progress: Progress
    ) -> dict[str, list[Path]]:
        """Shards of the arrays that ``encode`` returns by name, encoded together; ``files`` names their files."""
        shards: dict[str, list[Path]] = {name: [] for name in files}
        for piece in batch_slices(count, SHARD):
            paths = {name: self._folder / f"{file}-{piece.start:08d}.npy" for name, file in files.items()}
            for name, path in paths.items():
                shards[name].append(path)
            if all(is_sealed(path) for path in paths.values()):
                progress.found(piece.stop - piece.start)
                continue
            parts = [
                encode(slice(piece.start + part.start, piece.start + part.stop))
                for part in batch_slices(piece.stop - piece.start, BATCH)
            ]
            for name, path in paths.items():
                write_array(path, np.concatenate([part[name] for part in parts]))
                seal(path)
            progress.advance(piece.stop - piece.start)
        return shards

    def _encode_sizes(
        self, aspect_ratios: AspectRatios, side: Orientation, progress: Progress
    ) -> dict[Size, list[Path]]:
        """Shards of the posteriors by size, (rows, K, 2, C, h, w), mean before deviation; places the rows within their size."""
        shards = {}
        for height, width in np.unique(self._sizes, axis=0).tolist():
            rows = np.flatnonzero((self._sizes == (height, width)).all(1))
            self._place[rows] = np.arange(len(rows))
            files = {"posterior": f"posterior-{side}-{aspect_ratios}-{height}x{width}"}
            encode = self._pairs_encoder(rows, (height, width), side)
            shards[height, width] = self._shards(files, len(rows), encode, progress)["posterior"]
        return shards

    def _gather(self, shards: Sequence[Path], rows: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.stack([self._row(shards, row) for row in rows]))

    def _row(self, shards: Sequence[Path], row: int) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._open(shards[row // SHARD])[row % SHARD]
        return found

    def _pairs_encoder(self, rows: NDArray[np.int64], size: Size, side: Orientation) -> Callable[[slice], Arrays]:
        count = self._data.width

        def encode(places: slice) -> Arrays:
            pixels = torch.stack([to_pixels(image, size) for image in self._data.images(rows[places].tolist())])
            found = self._model.encode_images(pixels.flip(-1) if side == "mirrored" else pixels)
            both = torch.stack(found, dim=1).float().cpu()
            return {"posterior": both.unflatten(0, (-1, count)).numpy()}

        return encode

    def _encode_negative(self, rows: slice) -> Arrays:
        return {name: value.float().cpu().numpy() for name, value in self._model.encode_negative([""]).items()}

    def _text_encoder(self, captions: Sequence[str]) -> Callable[[slice], Arrays]:
        def encode(rows: slice) -> Arrays:
            encoded = self._model.encode_text(captions[rows])
            return {name: value.float().cpu().numpy() for name, value in encoded.items()}

        return encode


def to_pixels(image: Image.Image, target: Size) -> Tensor:
    """Resize to cover ``target`` (bilinear), crop the centre; float32 in [-1, 1], (3, *target)."""
    size = (image.height, image.width)
    resized = covering(size, target)
    if resized != size:
        image = resize_image(image, resized[::-1], Image.Resampling.BILINEAR)
    top, left = Framing.centre(size, target).corner
    array = np.asarray(image.crop((left, top, left + target[1], top + target[0])), dtype=np.float32)
    return torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1)
