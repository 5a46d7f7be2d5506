"""How a training image was cropped; some models are conditioned on it."""

from __future__ import annotations

import dataclasses
from typing import Self

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclasses.dataclass(frozen=True, slots=True)
class Framing:
    """An image's size before it was resized, where its crop begins after that, and the size of the crop; pixels.

    Attributes:
        original: height and width of the original image.
        corner: top and left of the crop, in the resized image.
        target: height and width of the crop.
    """

    original: Size
    corner: tuple[int, int]
    target: Size

    @classmethod
    def whole(cls, size: Size) -> Self:
        """An image that was neither resized nor cropped; sampling conditions on this."""
        return cls(size, (0, 0), size)

    @classmethod
    def centre(cls, original: Size, target: Size) -> Self:
        """The centre crop of an image that is first resized to cover ``target``; half pixels as torchvision's CenterCrop."""
        height, width = covering(original, target)
        return cls(original, (round((height - target[0]) / 2), round((width - target[1]) / 2)), target)


def covering(original: Size, target: Size) -> Size:
    """The smallest size of the image's aspect ratio that covers ``target``; the longer side is rounded down, as torchvision does."""
    if target[0] * original[1] >= target[1] * original[0]:
        return target[0], max(target[1], target[0] * original[1] // original[0])
    return max(target[0], target[1] * original[0] // original[1]), target[1]
