"""From an image to the input of a scorer's image tower: the three pipelines that published scorers use.

All three return float32, shape (3, size, size), normalised with the mean and standard deviation of CLIP.  `Preprocessing.pixels` does
the same with gradient, from a picture's values instead of an image: without rounding, and so within half a level of 256.

* `OpenAIPreprocessing`, "openai" (OpenAI ``clip``; ImageReward, aesthetic predictor, CLIPScore): resize, crop, then convert to RGB.
* `HuggingFacePreprocessing`, "huggingface" (``CLIPImageProcessor``; PickScore): convert to RGB, resize, crop; the crop of a non-square
  image can be one pixel off from that of `openai`.
* `LetterboxPreprocessing`, "letterbox" (HPSv2): convert to RGB, resize the *long* side as a float tensor, pad to a square with black.

Source: the packages of the authors (clip, transformers 4.30, hpsv2 1.2.0), which `openai` and `huggingface` match bit by bit and
`letterbox` to within 2e-6.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from bench import CLIP_MEAN, CLIP_STD, resize_image


@dataclasses.dataclass(frozen=True, slots=True)
class Preprocessing(abc.ABC):
    """One pipeline from an image to a tensor; ``size`` is the side of the square in pixels."""

    name: ClassVar[str]
    size: int

    @property
    @abc.abstractmethod
    def smooths(self) -> bool:
        """Whether shrinking averages over the pixels that are merged (antialiasing)."""

    @abc.abstractmethod
    def __call__(self, image: Image.Image) -> Tensor:
        """The image, of any mode and size, as float32, (3, size, size)."""

    @abc.abstractmethod
    def pixels(self, values: Tensor) -> Tensor:
        """RGB pictures in [0, 1], (N, 3, H, W), with gradient; (N, 3, size, size), in their dtype and on their device."""

    def batch(self, images: Sequence[Image.Image]) -> Tensor:
        """Images as float32, (N, 3, size, size); N is at least 1."""
        return torch.stack([self(image) for image in images])

    def identity(self) -> dict[str, Any]:
        """Name, size and antialiasing, for the record."""
        return {"name": self.name, "size": self.size, "antialias": self.smooths}


@dataclasses.dataclass(frozen=True, slots=True)
class OpenAIPreprocessing(Preprocessing):
    """Resize, crop, convert."""

    name: ClassVar[str] = "openai"

    @property
    def smooths(self) -> bool:
        """Always true of Pillow's bicubic."""
        return True

    def __call__(self, image: Image.Image) -> Tensor:
        """See `Preprocessing`.

        The conversion comes last, as in the source: Pillow resizes a palette image by nearest neighbour, and weights a
        transparent one by its opacity, which is then dropped.
        """
        resized = short_side(image, self.size)
        # Python's rounding, half to even, as torchvision's CenterCrop does.
        left, top = (round((side - self.size) / 2) for side in resized.size)
        return normalised(unit_tensor(cropped(resized, left, top, self.size).convert("RGB")))

    def pixels(self, values: Tensor) -> Tensor:
        """See `Preprocessing`."""
        resized = short_side_pixels(values, self.size)
        top, left = (round((side - self.size) / 2) for side in resized.shape[-2:])
        return normalised(resized[..., top : top + self.size, left : left + self.size])


@dataclasses.dataclass(frozen=True, slots=True)
class HuggingFacePreprocessing(Preprocessing):
    """Convert, resize, crop."""

    name: ClassVar[str] = "huggingface"

    @property
    def smooths(self) -> bool:
        """Always true of Pillow's bicubic."""
        return True

    def __call__(self, image: Image.Image) -> Tensor:
        """See `Preprocessing`; the opacity of a transparent image is dropped, as in transformers 4.30."""
        resized = short_side(image.convert("RGB"), self.size)
        left, top = ((side - self.size) // 2 for side in resized.size)
        return normalised(unit_tensor(cropped(resized, left, top, self.size)))

    def pixels(self, values: Tensor) -> Tensor:
        """See `Preprocessing`."""
        resized = short_side_pixels(values, self.size)
        top, left = ((side - self.size) // 2 for side in resized.shape[-2:])
        return normalised(resized[..., top : top + self.size, left : left + self.size])


@dataclasses.dataclass(frozen=True, slots=True)
class LetterboxPreprocessing(Preprocessing):
    """Convert, resize the long side, pad.

    Args:
        antialias: whether shrinking smooths.  The authors' code leaves it to torchvision, whose default was False up to
            0.16, the version with which HPS v2 was trained and evaluated, and has been True since.
    """

    name: ClassVar[str] = "letterbox"
    antialias: bool = False

    @property
    def smooths(self) -> bool:
        """As `antialias` says."""
        return self.antialias

    def __call__(self, image: Image.Image) -> Tensor:
        """See `Preprocessing`.

        The authors' code fails on an image with transparency, or with exactly ``size`` pixels on its long side only; this one
        drops the opacity and pads the image like any other.
        """
        return self.pixels(unit_tensor(image.convert("RGB"))[None])[0]

    def pixels(self, values: Tensor) -> Tensor:
        """See `Preprocessing`."""
        height, width = values.shape[-2:]
        scale = self.size / max(height, width)
        if scale != 1:
            target = (max(1, round(height * scale)), max(1, round(width * scale)))
            # Not clamped: bicubic weights overshoot [0, 1], and the network was trained on that.
            values = functional.interpolate(
                values, size=target, mode="bicubic", align_corners=False, antialias=self.antialias
            )
        height, width = values.shape[-2:]
        top, left = (self.size - height) // 2, (self.size - width) // 2
        sides = (left, self.size - width - left, top, self.size - height - top)
        return normalised(functional.pad(values, sides))


def short_side(image: Image.Image, size: int) -> Image.Image:
    """Bicubic resize to ``size`` pixels on the short side; the long side is rounded down."""
    target = short_side_target(*image.size, size)
    return image if target == image.size else resize_image(image, target, Image.Resampling.BICUBIC)


def short_side_target(one: int, other: int, size: int) -> tuple[int, int]:
    """Two sides, scaled so that the shorter one is ``size``; the longer one is rounded down."""
    return max(size, int(size * one / other)), max(size, int(size * other / one))


def short_side_pixels(values: Tensor, size: int) -> Tensor:
    """As `short_side`, of pictures in [0, 1], (N, 3, H, W), with gradient; kept in [0, 1], as Pillow keeps its levels."""
    height, width = values.shape[-2:]
    target = short_side_target(height, width, size)
    if target == (height, width):
        return values
    return functional.interpolate(values, size=target, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


def cropped(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
    """The square of ``size`` pixels whose corner is (left, top)."""
    return image.crop((left, top, left + size, top + size))


def unit_tensor(image: Image.Image) -> Tensor:
    """An RGB image as float32 in [0, 1], (3, height, width)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def normalised(pixels: Tensor) -> Tensor:
    """Subtract CLIP's mean and divide by its standard deviation, channel by channel; (..., 3, height, width)."""
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std
