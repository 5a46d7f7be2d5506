"""How much data and how many images a plan is made for, as far as that is known without a download."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from bench.core.strict import exists
from bench.data.reading import count_pairs
from bench.data.sources import open_source
from bench.prompts.sets import PROMPT_SETS, find_prompts

ASSUMED = 1000
"""Rows, captions and images where their number is not known."""


@dataclasses.dataclass(frozen=True, slots=True)
class DataSize:
    """Rows and captions of preference data.

    Attributes:
        pairs: its pairs, or the most that are used of it; None if that is not known.
        captions: different captions among them, at most; None if that is not known.
    """

    pairs: int | None = None
    captions: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """What the figures of a plan are for.

    Attributes:
        rows: rows of the data.
        captions: different captions.
        images: evaluation images per run.
    """

    rows: int = ASSUMED
    captions: int = ASSUMED
    images: int = ASSUMED


def is_here(name: str) -> bool:
    """Whether data or prompts are a file or a folder on this machine; not a hub id, and not a path of another machine."""
    return exists(Path(name))


def size_of_data(data: str | None, columns: Mapping[str, str] | None = None, limit: int | None = None) -> DataSize:
    """How much preference data there is, without the ties; its images are not looked at.

    Args:
        data: a file, a folder or a hub id; None if it is not known yet.
        columns: see `bench.data.sources.open_source`.
        limit: how many pairs are used at most; None means all.

    Raises:
        UserError: the data is on this machine and cannot be read.
    """
    if data is None or not is_here(data):
        return DataSize(limit, limit)
    return DataSize(*count_pairs(open_source(data, columns), data, limit))


def count_prompts(prompts: str | None, limit: int | None = None) -> int | None:
    """How many different evaluation prompts there are, of a set on the hub those it states; None if that is not known.

    Args:
        prompts: a registered set or a file; None if it is not known yet.
        limit: how many are used at most; None means all.

    Raises:
        UserError: the prompts are on this machine and cannot be read.
    """
    if prompts is None:
        return limit
    if prompts in PROMPT_SETS and not PROMPT_SETS.get(prompts).local:
        count = PROMPT_SETS.get(prompts).count
    elif prompts in PROMPT_SETS or is_here(prompts):
        count = len(set(find_prompts(prompts)))
    else:
        return limit
    return count if limit is None else min(count, limit)
