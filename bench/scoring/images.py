"""The images of a folder, and the constants with which CLIP normalises them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench.core.errors import UserError
from bench.core.folders import walk
from bench.core.strict import check_encoding

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
TEXTS = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".md"})
"""Suffixes of prompts and tables, which often lie beside images."""
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
    relative = [path.relative_to(folder) for path in walk(folder) if path.suffix.lower() in SUFFIXES]
    shown = [path for path in relative if not any(part.startswith(".") for part in path.parts)]
    files = sorted((check_encoding(path.as_posix()) for path in shown if (folder / path).is_file()), key=_natural)
    if not files:
        raise UserError(f"{folder} holds no images; their names must end in {', '.join(sorted(SUFFIXES))}")
    return files


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"([0-9]+)", name)
    numbers = [int(part) if part.isascii() and part.isdigit() else None for part in parts]
    return [(number is None, number or 0, part) for number, part in zip(numbers, parts, strict=True)]


def left_out(folder: Path, files: Sequence[str]) -> list[str]:
    """Files of a folder that may have been meant as images: those that are neither images, nor hidden, nor text.

    Args:
        folder: the images' folder.
        files: the images, as `find_images` returns them.
    """
    found = {path.relative_to(folder) for path in walk(folder)}
    shown = sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
    taken = {*files}
    return [name for name in shown if name not in taken and Path(name).suffix.lower() not in TEXTS]
