"""HPDv2's annotation files: ``train.json`` with one choice between two images per row, ``test.json`` with ranked lists.

Wu et al. 2023, arXiv 2306.09341; the layout is that of the dataset's card.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.inputs import read_text
from bench.data.sources.base import Source, file_stamp
from bench.data.sources.jsonl import to_table
from bench.data.sources.table import TableSource

INDEX = "train.json"
PATHS = ("image_path", "file_path")


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
    try:
        content = json.loads(read_text(file, encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); give HPDv2's train.json or test.json") from error
    entries = content if isinstance(content, list) else [content]
    records = [pair for row, entry in enumerate(entries) for pair in _pairs(entry, row, file)]
    partial = file.parent
    first = records[0]["jpg_0"] if records else ""
    folder = partial if (partial / first).is_file() else partial / file.stem
    return TableSource(to_table(records, file), folder, [file], file_stamp(file))


def _pairs(entry: Any, row: int, file: Path) -> Iterator[dict[str, Any]]:
    paths = next((entry[name] for name in PATHS if name in entry), None) if isinstance(entry, dict) else None
    worth = _scores_from_ranks(entry) if paths else None
    if not paths or worth is None or "prompt" not in entry or len(worth) != len(paths):
        raise UserError(
            f"{file}: entry {row} does not have HPDv2's layout; it needs prompt, image_path (or file_path) and, of the same "
            "length, human_preference, rank or raw_annotations"
        )
    for one, other in itertools.combinations(range(len(paths)), 2):
        label = 0.5 + 0.5 * ((worth[one] > worth[other]) - (worth[one] < worth[other]))
        yield {"caption": entry["prompt"], "jpg_0": paths[one], "jpg_1": paths[other], "label_0": label}


def _scores_from_ranks(entry: Mapping[str, Any]) -> list[float] | None:
    """A number for each image, higher is better; None if the entry has no preference.  Rank 1 is the best."""
    if "human_preference" in entry:
        return list(entry["human_preference"])
    if "rank" in entry:
        return [-rank for rank in entry["rank"]]
    ranks = [note["rank"] for note in entry.get("raw_annotations", [])]
    return [-sum(each) for each in zip(*ranks, strict=True)] if ranks else None
