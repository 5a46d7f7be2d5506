"""Pictures from anywhere: found, measured before they are decoded, opened."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from bench.core.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
"""Pillow's formats that are opened, whatever the file's name; others, such as PostScript, start programs."""

MAX_PIXELS = 1 << 26
"""Pixels of the largest image that is decoded, 8192 x 8192; a small file may unpack to far more."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green and blue in [0, 1], which CLIP and every scorer built on it subtract (OpenAI's ``clip``)."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of the same, by which they divide."""

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
"""What Pillow raises on bytes that are not, or not wholly, a picture."""

# For good, since pictures are opened in threads, where filters cannot be set for a while only.
warnings.simplefilter("error", Image.DecompressionBombWarning)


class UnreadableImageError(Exception):
    """A file that holds no whole picture; the text says why."""


def find_images(folder: Path) -> list[str]:
    """Pictures in a folder and the folders in it, by suffix: paths relative to ``folder``, with slashes.

    Numbers in names sort by value: ``2.png`` comes before ``10.png``.  Hidden files are left out.

    Raises:
        UserError: the folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the folder that holds the images")
    relative = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    shown = [path for path in relative if not any(part.startswith(".") for part in path.parts)]
    files = sorted((path.as_posix() for path in shown if (folder / path).is_file()), key=_natural)
    if not files:
        raise UserError(f"{folder} holds no images; their names must end in {', '.join(sorted(SUFFIXES))}")
    return files


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"([0-9]+)", name)
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def open_image(path: Path) -> Image.Image:
    """A picture, decoded, in its own mode; of an animation the first frame.

    The header is read first: a picture of more than `MAX_PIXELS` is never decoded.

    Raises:
        UnreadableImageError: empty, not an image, cut off, damaged or too large.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(
                    f"{image.width} x {image.height} pixels, more than the {MAX_PIXELS} that are decoded"
                )
            return image.copy()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"more than the {MAX_PIXELS} pixels that are decoded") from error
    except UnidentifiedImageError as error:
        reason = "no picture of a known format" if path.stat().st_size else "an empty file"
        raise UnreadableImageError(reason) from error
    except DAMAGE as error:
        raise UnreadableImageError(f"cannot be decoded ({str(error).partition(chr(10))[0]})") from error
