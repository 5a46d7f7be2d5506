"""The size that each row's images are cropped to for training: the model's square, or one of many shapes of about its area."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.preferences import PreferenceData
from bench.models.family import ModelFamily
from bench.models.framing import Size

PictureSize = Literal["true", "nominal"]

AspectRatios = Literal["square", "buckets"]

HorizontalFlip = Literal["none", "image", "pair"]


STEPS = 16
"""A side of a bucket is a multiple of the model's side divided by this: of 64 pixels for 1024, as SDXL was trained."""
LONGEST = 2
"""Largest side of a bucket, as a multiple of the side of the model's square."""


def square(data: PreferenceData, model: ModelFamily) -> NDArray[np.int32]:
    """The model's own size for every row; height and width, int32, (N, 2)."""
    return np.full((len(data), 2), model.resolution, dtype=np.int32)


def bucketed(data: PreferenceData, model: ModelFamily) -> NDArray[np.int32]:
    """For every row, the bucket whose aspect ratio is nearest to that of its images; height and width, int32, (N, 2).

    The images of a row share a size, since they share their noise: it is chosen by the mean of the logarithms of their
    aspect ratios, so it does not depend on which one is preferred.
    """
    buckets = aspect_buckets(model)
    ratios = np.log([height / width for height, width in buckets])
    found = np.empty((len(data), 2), dtype=np.int32)
    for row in range(len(data)):
        sizes = [data.size(row, side) for side in range(data.width)]
        ratio = math.fsum(math.log(height / width) for height, width in sizes) / len(sizes)
        found[row] = buckets[int(np.abs(ratios - ratio).argmin())]
    return found


TRAINING_SIZES: Mapping[AspectRatios, Callable[[PreferenceData, ModelFamily], NDArray[np.int32]]] = {
    "square": square,
    "buckets": bucketed,
}


def aspect_buckets(model: ModelFamily) -> Sequence[Size]:
    """Heights and widths of at most the area of the model's square, from wide to tall; Podell et al. 2023, appendix I."""
    side, unit = model.resolution, model.size_unit
    step = unit * math.ceil(side / STEPS / unit)
    heights = range(step * math.ceil(side / LONGEST / step), side * LONGEST + 1, step)
    sizes = [(height, side * side // height // step * step) for height in heights]
    return [size for size in sizes if step <= size[1] <= side * LONGEST]
