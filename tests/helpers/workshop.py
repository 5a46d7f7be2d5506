"""The small setup of the contracts with pairs of the tiny world, and helpers for several tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.experiments.contracts.small_models import SD_SCHEDULE, SD_SCHEDULER, SIDE
from bench.experiments.contracts.small_setup import (
    CPU,
    PAIRS,
    Brightness,
    SmallSetup,
    batch_of,
    pair_columns,
    png,
    state,
)
from bench.tiny.world import COLOURS, OBJECTS

__all__ = [
    "CPU",
    "SD_SCHEDULE",
    "SD_SCHEDULER",
    "SIDE",
    "Brightness",
    "Workshop",
    "batch_of",
    "png",
    "preference_columns",
    "state",
    "write_parquet",
]


def tiny_captions(count: int) -> list[str]:
    """Valid captions of the tiny world."""
    objects, colours = tuple(OBJECTS), tuple(COLOURS)
    return [f"a {objects[row % 50]} on a {colours[row % 10]} background" for row in range(count)]


def preference_columns(count: int) -> dict[str, list[Any]]:
    """Pick-a-Pic's columns for ``count`` pairs without ties."""
    return pair_columns(tiny_captions(count))


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    """Write columns as a Parquet file."""
    pq.write_table(pa.table(columns), path)
    return path


class Workshop(SmallSetup):
    """The small setup, with captions of the tiny world."""

    @property
    def captions(self) -> list[str]:
        return tiny_captions(PAIRS)
