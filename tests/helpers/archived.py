"""The archives of runs beside the pages."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import forked


def bench(folder: Path, *words: str) -> str:
    """What a command prints."""
    done = forked.run(words, folder, os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def unpacked(archive: Path, folder: Path) -> Path:
    """The run folders of a compressed bundle, below a folder."""
    (folder / "study.tar").write_bytes(lzma.decompress(archive.read_bytes()))
    bench(folder, "verify", "study.tar", "--output", "study")
    return folder / "study" / "runs"
