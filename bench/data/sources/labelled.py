"""Rows that all have the same label, without a label column: files with columns such as chosen and rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from bench.data.sources.base import Source

LABEL = "label_0"
TEXTS: Mapping[str, float] = {"0": 0.0, "0.5": 0.5, "1": 1.0}
"""Values of ``--columns label_0=...`` that are a label for every row instead of a column's name."""


class LabelledSource(Source):
    """A source without labels, with the same label in every row.

    Args:
        source: the rows.
        label: the label of every row.
    """

    def __init__(self, source: Source, label: float) -> None:
        self._source, self._label = source, label
        self.names = [*source.names, LABEL]
        self.stamp = [source.stamp, label]
        self.provenance = source.provenance

    @property
    def files(self) -> Sequence[Path]:
        return self._source.files

    def __len__(self) -> int:
        return len(self._source)

    def facts(self, names: Sequence[str]) -> pa.Table:
        others = self._source.facts([name for name in names if name != LABEL])
        labels = pa.array([self._label] * len(self), pa.float64())
        return pa.table({name: labels if name == LABEL else others[name] for name in names})

    def images(self, row: int) -> tuple[bytes, ...]:
        return self._source.images(row)

    def problem(self, row: int, image: int) -> str:
        return self._source.problem(row, image)
