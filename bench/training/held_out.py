"""Captions that an algorithm which samples does not train on, so that its progress can be judged on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

LARGEST_SHARE = 4
"""At most one in so many captions is held out."""


def spread_captions(captions: Iterable[str], count: int) -> list[str]:
    """``count`` different captions, evenly spaced in alphabetical order, or all if there are fewer."""
    different = sorted(set(captions))
    places = np.linspace(0, len(different) - 1, min(count, len(different))).round().astype(int)
    return [different[place] for place in np.unique(places)]


def held_out_captions(captions: Iterable[str], count: int) -> list[str]:
    """``count`` captions that are not trained on, evenly spaced in alphabetical order; a quarter of the different ones at most."""
    different = set(captions)
    return spread_captions(different, min(count, len(different) // LARGEST_SHARE))


def trained_rows(captions: Sequence[str], count: int) -> list[int]:
    """Rows of the data that are trained on, in its order, where ``count`` captions are held out."""
    without = set(held_out_captions(captions, count))
    return [row for row, caption in enumerate(captions) if caption not in without]
