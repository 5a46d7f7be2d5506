"""Latents and text embeddings of the data, computed once per (data, encoders, size) and shared by every algorithm."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.core.chunks import batch_slices
from bench.core.files import write_array
from bench.core.images import resize_image
from bench.core.progress import Progress
from bench.data.buckets import TRAINING_SIZES, AspectRatios, PictureSize
from bench.data.preferences import PreferenceData
from bench.models.family import ModelFamily
from bench.models.framing import Framing, Size, covering

SHARD = 512
BATCH = 16
OPEN = 64
"""Shards mapped at the same time; a process may often open only about a thousand files."""

Arrays = dict[str, NDArray[np.float32]]
"""Encoded rows by name, each with the rows as its leading axis."""


class EncodedData:
    """Latents and text embeddings of preference pairs, memory-mapped from shards.

    Shards are written one by one and renamed into place, so an interrupted encoding resumes.

    Args:
        folder: where the shards are; used only for this data, this resolution and the model's encoders.
        aspect_ratios: whether each row's images are cropped to a square or to the nearest bucket.
    """

    def __init__(
        self, data: PreferenceData, model: ModelFamily, folder: Path, aspect_ratios: AspectRatios = "square"
    ) -> None:
        self._data, self._model, self._folder = data, model, folder
        self._sizes = TRAINING_SIZES[aspect_ratios](data, model)
        self._open = functools.lru_cache(OPEN)(functools.partial(np.load, mmap_mode="r"))
        captions = sorted({*data.captions, ""})
        self._caption_row = {caption: row for row, caption in enumerate(captions)}
        with Progress("encoding pairs", total=len(data) + len(captions) + 1) as progress:
            self._latents, self._place = self._encode_sizes(aspect_ratios, progress)
            files = {name: f"text-{name}" for name in model.condition_names}
            self._texts = self._shards(files, len(captions), self._text_encoder(captions), progress)
            files = {name: f"negative-{name}" for name in model.condition_names}
            self._negative = self._shards(files, 1, self._encode_negative, progress)

    def size(self, row: int) -> Size:
        """Height and width in pixels that the images of a row are cropped to."""
        height, width = self._sizes[row].tolist()
        return height, width

    def latents(self, rows: Sequence[int]) -> Tensor:
        """Latents of all images of some rows of one size; float32, (B, K, C, h, w), K = 2 for pairs."""
        found = [self._row(self._latents[self.size(row)], int(self._place[row])) for row in rows]
        return torch.from_numpy(np.stack(found))

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
            if all(path.exists() for path in paths.values()):
                progress.found(piece.stop - piece.start)
                continue
            parts = [
                encode(slice(piece.start + part.start, piece.start + part.stop))
                for part in batch_slices(piece.stop - piece.start, BATCH)
            ]
            for name, path in paths.items():
                write_array(path, np.concatenate([part[name] for part in parts]))
            progress.advance(piece.stop - piece.start)
        return shards

    def _encode_sizes(
        self, aspect_ratios: AspectRatios, progress: Progress
    ) -> tuple[dict[Size, list[Path]], NDArray[np.int64]]:
        """Shards of the latents by size, and the index of every row among the rows of its size, int64, (N,)."""
        shards, place = {}, np.empty(len(self._sizes), dtype=np.int64)
        for height, width in np.unique(self._sizes, axis=0).tolist():
            rows = np.flatnonzero((self._sizes == (height, width)).all(1))
            place[rows] = np.arange(len(rows))
            files = {"latents": f"latents-{aspect_ratios}-{height}x{width}"}
            encode = self._pairs_encoder(rows, (height, width))
            shards[height, width] = self._shards(files, len(rows), encode, progress)["latents"]
        return shards, place

    def _gather(self, shards: Sequence[Path], rows: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.stack([self._row(shards, row) for row in rows]))

    def _row(self, shards: Sequence[Path], row: int) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._open(shards[row // SHARD])[row % SHARD]
        return found

    def _pairs_encoder(self, rows: NDArray[np.int64], size: Size) -> Callable[[slice], Arrays]:
        count = self._data.width

        def encode(places: slice) -> Arrays:
            images = [self._data.image(row, which) for row in rows[places].tolist() for which in range(count)]
            pixels = torch.stack([to_pixels(image, size) for image in images])
            latents = self._model.encode_images(pixels).float().cpu().numpy()
            return {"latents": latents.reshape(-1, count, *latents.shape[1:])}

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
