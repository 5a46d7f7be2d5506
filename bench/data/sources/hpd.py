"""HPDv2's annotation files: ``train.json`` with one choice between two images per row, ``test.json`` with ranked lists.

Wu et al. 2023, arXiv 2306.09341; the layout is that of the dataset's card.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.parquet import MOST_ROWS
from bench.core.strict import quoted, read_json_strictly
from bench.data.sources.base import Source, file_stamp, stored_file
from bench.data.sources.jsonl import to_table
from bench.data.sources.table import TableSource

INDEX = "train.json"
PATHS = ("image_path", "file_path")
MOST_IMAGES = 100
"""Images of the longest list, each two of which are a pair."""
LARGEST = 10**9
"""Largest rank or preference."""


def open_hpd(path: Path, columns: Mapping[str, str]) -> Source | None:
    """A ``.json`` file, or a folder with ``train.json``; images lie beside it or in a folder of its name.

    A ranked list becomes one pair for every two of its images; equal preferences or ranks are ties.

    Raises:
        UserError: the file has another layout, or ``columns`` is given: this layout's names are fixed.
    """
    file = path / INDEX if path.is_dir() else path
    if file.suffix.lower() != ".json" or not file.is_file():
        return None
    if columns:
        raise UserError(f"{file} has HPDv2's layout, whose names are fixed; leave --columns out")
    content = read_json_strictly(file)
    entries = content if isinstance(content, list) else [content]
    records: list[dict[str, Any]] = []
    for row, entry in enumerate(entries):
        records += _pairs(entry, row, file)
        if len(records) > MOST_ROWS:
            raise UserError(
                f"{file}: up to entry {row} there are {len(records):,} pairs, and at most {MOST_ROWS:,} are read; give fewer"
            )
    partial = file.parent
    first = records[0]["jpg_0"] if records else ""
    folder = partial / file.stem if stored_file(partial, first) is None else partial
    return TableSource(to_table(records, file), folder, [file], file_stamp(file))


def _pairs(entry: Any, row: int, file: Path) -> Iterator[dict[str, Any]]:
    where = f"{file}: entry {row}"
    if not isinstance(entry, dict):
        raise UserError(f"{where} is {quoted(entry)}, not an object; give HPDv2's train.json or test.json")
    prompt, paths = entry.get("prompt"), next((entry[name] for name in PATHS if name in entry), None)
    if not isinstance(prompt, str):
        raise UserError(f"{where}: prompt must be text, but is {quoted(prompt)}; write the caption there")
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        raise UserError(
            f"{where}: image_path (or file_path) must be a list of paths, but is {quoted(paths)}; write it so"
        )
    if len(paths) > MOST_IMAGES:
        raise UserError(f"{where} has {len(paths):,} images, and at most {MOST_IMAGES} are read; split the list")
    preferences = _preference_scores(entry, where)
    if len(preferences) != len(paths):
        raise UserError(
            f"{where} has {len(paths)} images, but preferences or ranks for {len(preferences)}; write one for each"
        )
    for one, other in itertools.combinations(range(len(paths)), 2):
        first, second = preferences[one], preferences[other]
        label = 0.5 + 0.5 * ((first > second) - (first < second))
        yield {"caption": prompt, "jpg_0": paths[one], "jpg_1": paths[other], "label_0": label}


def _preference_scores(entry: Mapping[str, Any], where: str) -> list[float]:
    """A number for each image, higher is better.  Rank 1 is the best."""
    if "human_preference" in entry:
        return _numbers(entry["human_preference"], f"{where}: human_preference")
    if "rank" in entry:
        return [-rank for rank in _numbers(entry["rank"], f"{where}: rank")]
    notes = entry.get("raw_annotations")
    if not isinstance(notes, list) or not notes or not all(isinstance(note, dict) for note in notes):
        raise UserError(
            f"{where} has no human_preference, rank or raw_annotations, which must be a list of objects with a rank; give "
            "HPDv2's train.json or test.json"
        )
    ranks = [_numbers(note.get("rank"), f"{where}: raw_annotations") for note in notes]
    if len({len(each) for each in ranks}) > 1:
        raise UserError(f"{where}: raw_annotations hold ranks of different numbers of images; write one for each image")
    return [-sum(each) for each in zip(*ranks, strict=True)]


def _numbers(value: Any, where: str) -> list[float]:
    if not isinstance(value, list) or not all(type(each) in (int, float) for each in value):
        raise UserError(
            f"{where} must hold a list of numbers, one for each image, but holds {quoted(value)}; write it so"
        )
    if wrong := [each for each in value if not abs(each) <= LARGEST]:
        raise UserError(f"{where} holds {quoted(wrong[0])}; write numbers of at most {LARGEST:,}")
    return value
