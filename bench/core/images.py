"""Images from anywhere: opened by one function for scoring, data and reports, and resized alike by every Pillow."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.core.inputs import special

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
"""Pillow's formats that are opened, whatever the file's name; others, such as PostScript, start programs."""

MAX_PIXELS = 1 << 26
"""Pixels of the largest image that is decoded, 8192 x 8192; a small file may unpack to far more."""

MOST_RATIO = 100
"""How many times as long as the other a side may be; a thin image of a few bytes grows when it is resized."""

MOST_IMAGE = 1 << 29
"""Bytes of the largest file that is opened as an image: twice what the most pixels take uncompressed."""

BACKGROUND = (255, 255, 255)
"""What is seen through transparent pixels."""

PREMULTIPLIED = {"RGBA": "RGBa", "LA": "La"}
"""Modes with opacity, and those in which colours are multiplied by it."""

DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for bytes that are not, or not wholly, an image."""

# For good, since images are opened in threads, where filters cannot be set for a while only.
warnings.simplefilter("error", Image.DecompressionBombWarning)


class UnreadableImageError(Exception):
    """A file that does not hold a whole image; the text says why."""


def open_image(source: Path | bytes) -> Image.Image:
    """An image as a viewer shows it: upright, 8 bits per channel, without transparency; of an animation the first frame.

    * The orientation that a camera wrote into EXIF is applied.
    * Transparent pixels are composed on white.
    * Grey images of 16 bits are scaled to 8.  Floats from 0 to 1 are scaled to 0 to 255.  Floats outside of that and 32-bit
      integers are refused, since nothing says what is black and what is white.

    The header is read first: an image of more than `MAX_PIXELS` is never decoded, nor is a second frame, whatever their number.
    Of texts, Pillow unpacks 1 MB each and 64 MB together, and refuses more.

    Args:
        source: a file, or its content.

    Returns:
        The image, in the mode L or RGB, or in another 8-bit mode without transparency, such as P or CMYK.

    Raises:
        UnreadableImageError: empty, not an image, cut off, damaged, too large, or of an unknown range.
    """
    if isinstance(source, Path) and (kind := special(source)) is not None:
        raise UnreadableImageError(f"{kind}, not a file")
    try:
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) > MOST_IMAGE:
            raise UnreadableImageError(f"more than the limit of {MOST_IMAGE} bytes")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(
                    f"{image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS}"
                )
            if max(image.size) > MOST_RATIO * min(image.size):
                raise UnreadableImageError(
                    f"{image.width} x {image.height} pixels, one side more than {MOST_RATIO} times the other"
                )
            return _opaque(_eight_bits(ImageOps.exif_transpose(image.copy())))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"more than the limit of {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        empty = not source if isinstance(source, bytes) else not source.stat().st_size
        reason = "an empty file" if empty else f"not an image in one of the formats {', '.join(FORMATS)}"
        raise UnreadableImageError(reason) from error
    except DAMAGE as error:
        raise UnreadableImageError(f"cannot be decoded ({str(error).partition(chr(10))[0]})") from error


def resize_image(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """An image at another size, with the same pixels under every version of Pillow: those of 9.5 to 12.0.

    Pillow filters along the rows and along the columns, and rounds to 8 bits between the two.  Newer versions choose the order
    by the size (12.3 for a few sizes, 13 for all tall images), which moves PickScore by up to 0.25; two calls fix the order.

    Args:
        image: of any mode.
        size: width and height in pixels.
        resample: the filter, which antialiases when it shrinks.
    """
    if image.mode in PREMULTIPLIED:  # as Pillow does in one call: transparent pixels do not bleed into their neighbours
        return resize_image(image.convert(PREMULTIPLIED[image.mode]), size, resample).convert(image.mode)
    width, height = size
    return image.resize((width, image.height), resample).resize((width, height), resample)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits per channel."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        values = np.asarray(image, dtype=np.float64) / 257
    elif image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if not (values >= 0).all() or not (values <= 1).all():
            raise UnreadableImageError("floats outside the range 0 to 1; save it with 8 bits per channel")
        values *= 255
    elif image.mode == "I":
        raise UnreadableImageError("32-bit integers, whose range is unknown; save it with 8 bits per channel")
    else:
        return image
    return Image.fromarray(values.round().astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """The image without transparency."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (*BACKGROUND, 255)), layer).convert("RGB")
