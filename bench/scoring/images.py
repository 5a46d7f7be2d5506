"""The images of a folder, and the constants with which CLIP normalises them."""

from __future__ import annotations

import re
from pathlib import Path

from bench.core.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green and blue in [0, 1], which CLIP and every scorer built on it subtract (OpenAI's ``clip``)."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of the same, by which they divide."""


def find_images(folder: Path) -> list[str]:
    """Images in a folder and its subfolders, by suffix: paths relative to ``folder``, with slashes.

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
