"""Labels of preference data: which image is preferred, and ties."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UserError
from bench.data.sources.base import Source
from bench.data.sources.labelled import LABEL, TEXTS

OTHER = "label_1"
LABELS = tuple(TEXTS.values())
TIE = 0.5
"""The label of a pair whose images are equally good; such pairs are dropped and counted."""


def read_labels(source: Source, name: str) -> NDArray[np.float64]:
    """``label_0`` of every row: 1 where image 0 is preferred, 0 where image 1 is, 0.5 for a tie; float64, (N,), NaN without labels.

    Args:
        source: the data.
        name: what the user called it.

    Raises:
        UserError: a label is something else.
    """
    if LABEL not in source.names:
        return np.full(len(source), np.nan)
    column = source.facts([LABEL])[LABEL]
    try:
        labels = np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{name}: label_0 is not numeric; labels must be 0, 0.5 (a tie) or 1") from None
    wrong = np.flatnonzero(~np.isin(labels, LABELS))
    if len(wrong):
        raise UserError(f"{name}: label_0 is {labels[wrong[0]]} in row {wrong[0]}; labels must be 0, 0.5 (a tie) or 1")
    if OTHER in source.names:
        _refuse_contradictions(labels, source, name)
    return labels


def _refuse_contradictions(labels: NDArray[np.float64], source: Source, name: str) -> None:
    """``label_1`` says the same from the other image's side: the two add up to 1."""
    others = np.asarray(source.facts([OTHER])[OTHER].to_numpy(zero_copy_only=False), dtype=np.float64)
    if len(wrong := np.flatnonzero(labels + others != 1)):
        row = wrong[0]
        raise UserError(
            f"{name}: {OTHER} contradicts {LABEL} in {len(wrong):,} of {len(labels):,} rows, first in row {row} ({labels[row]:g} and "
            f"{others[row]:g}, which must add up to 1); repair the labels, or drop {OTHER}"
        )
