"""Digests of resized images at many sizes, by plain calls of Pillow: `python golden_sizes.py` writes golden_sizes.json.

The file was written with Pillow 9.5.0; 10.4.0 and 12.0.0 write the same.  It imports nothing of ours, since it says what the
published packages do with their one call of ``Image.resize``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

FILE = Path(__file__).with_suffix(".json")
SIDES = (1, 37, 64, 224, 225, 300, 512, 611, 640, 1024, 1300, 1536)
SIZES = sorted(
    {
        (width, height)
        for width in SIDES
        for height in SIDES
        if 0.19 < width / height < 5.2 and max(width, height) < 1537
    }
)
"""Widths and heights; (300, 611), (640, 1536) and (512, 1300) are sizes at which Pillow 13 takes another order."""


def picture(width: int, height: int) -> Image.Image:
    """A pattern with edges in all directions and every value from 0 to 255, made of integers alone."""
    x, y = np.arange(width, dtype=np.int64)[None, :], np.arange(height, dtype=np.int64)[:, None]
    channels = [(x * 7 + y * 13) % 256, (x * x + 3 * y * y) // 16 % 256, ((x // 5 + y // 9) % 2) * 255 + 0 * y]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def covering(width: int, height: int, side: int) -> tuple[int, int]:
    """The size at which the short side is ``side`` pixels and the long side is rounded down."""
    return max(side, int(side * width / height)), max(side, int(side * height / width))


def digest(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


def main() -> None:
    made = {}
    for width, height in SIZES:
        image, target = picture(width, height), covering(width, height, 224)
        filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
        made[f"{width}x{height}"] = {name: digest(image.resize(target, each)) for name, each in filters.items()}
    FILE.write_text(json.dumps({"pillow": PIL.__version__, "digests": made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
