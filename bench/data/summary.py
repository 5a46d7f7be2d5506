"""What `bench data check` shows: a summary of preference data, to read before training on it."""

from __future__ import annotations

import collections
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from bench.data.labels import OTHER
from bench.data.reading import FACTS, InspectedData, read_scores
from bench.data.sources.base import Source, is_hidden, numbered
from bench.data.sources.labelled import LABEL

PREFERRED = f"and --columns {LABEL}=1 says that image 0 is the preferred one in every row"
SHOWN = 5
"""Largest number of names on a line."""


def check_table(
    inspected: InspectedData, prompts: Sequence[str] | None, needed: str, folder: Path | None = None
) -> Table:
    """The facts about preference data, one per line.

    Args:
        folder: the data's folder, if it is one: lines say which of its files were read.
        prompts: the evaluation prompts, to search for among the captions; None if there are none.
        needed: what to show if there are none.
    """
    table = Table(title=escape(inspected.name), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    files = () if folder is None else folder_lines(inspected.source.files, folder)
    for name, value in (*files, *check_lines(inspected, prompts, needed)):
        table.add_row(name, escape(value))
    return table


def folder_lines(read: Sequence[Path], folder: Path) -> Iterator[tuple[str, str]]:
    """Which files of a folder were read, and which were left out, by reason.

    Args:
        read: the files that hold the data.
        folder: the folder; links to other folders are not followed.
    """
    taken = {file.absolute() for file in read}
    here: list[str] = []
    left: dict[str, list[str]] = collections.defaultdict(list)
    for place, folders, files in os.walk(folder):
        folders.sort()
        links = [name for name in folders if Path(place, name).is_symlink()]
        for path in (Path(place, each) for each in sorted([*files, *links])):
            name = path.relative_to(folder)
            if path.absolute() in taken:
                here.append(str(name))
            else:
                left[_why_left(path, name)].append(str(name))
    yield "files read", _some(f"{len(here):,}", here)
    listed = [_some(f"{len(names):,} {why}", names) for why, names in sorted(left.items())]
    yield "files left out", "; ".join(listed) or "none"


def _why_left(path: Path, name: Path) -> str:
    if is_hidden(name):
        return "hidden"
    if path.is_symlink() and not path.is_file():
        return "links to folders, not followed, or to nothing"
    return f"with suffix {path.suffix}" if path.suffix else "without suffix"


def check_lines(inspected: InspectedData, prompts: Sequence[str] | None, needed: str) -> Iterator[tuple[str, str]]:
    """Name and value of each fact; see `check_table`."""
    report, survey, source = inspected.report, inspected.survey, inspected.source
    yield "rows", f"{report.rows:,}"
    yield "images per caption", str(len(source.image_names))
    yield "kept", f"{report.pairs:,}"
    yield "ties, dropped", f"{report.ties_dropped:,}"
    yield "undecodable, skipped", _some(f"{len(report.undecodable):,}", report.undecodable)
    rows = survey.rows[survey.decodable]
    yield "repeated rows, kept", f"{len(rows) - len(np.unique(rows)):,}"
    yield "rows of equal images, kept", f"{int(survey.identical_images[survey.decodable].sum()):,}"
    yield "labels", _labels(inspected)
    captions = _hashes(inspected.captions)
    yield "empty captions, kept", _empty(inspected.captions)
    yield "distinct captions", f"{len(np.unique(captions)):,}"
    yield "evaluation prompts among the captions", _overlap(captions, prompts, needed)
    yield "sizes (height x width)", _sizes(survey.sizes[survey.decodable])
    yield "sources", _values(inspected, numbered(source.names, "source") or numbered(source.names, "model"))
    yield "splits", _values(inspected, [name for name in ("split",) if name in source.names])
    scores = list(read_scores(source, inspected.kept))
    yield "scores", ", ".join(scores) or "none"
    unread = _unread(source, scores)
    yield "columns that are not read", _some(f"{len(unread):,}", unread)
    yield "digest", survey.digest
    for step in source.provenance:
        yield "made by", json.dumps(step, ensure_ascii=False)


def _unread(source: Source, scores: Sequence[str]) -> list[str]:
    """Names of the columns that neither training nor scoring uses, such as scores that only one image has."""
    stems = ["source", "model", *(f"score_{name}" for name in scores)]
    read = {"caption", "split", LABEL, OTHER, *source.image_names}
    read.update(name for stem in stems for name in numbered(source.names, stem))
    return [name for name in source.names if name not in read]


def _labels(inspected: InspectedData) -> str:
    labels = inspected.labels[inspected.kept]
    if not len(labels):
        return "no row is kept"
    if np.isnan(labels).all():
        pairs = len(inspected.source.image_names) == 2
        return f"none; most algorithms need {LABEL}, {PREFERRED}" if pairs else "none"
    return f"image 0 is preferred in {100 * labels.mean():.1f} % of {len(labels):,} pairs"


def _empty(captions: Sequence[str]) -> str:
    empty = sum(not caption.strip() for caption in captions)
    return f"{empty:,}: trained like pairs whose caption is dropped (caption_dropout)" if empty else "0"


def _overlap(captions: NDArray[np.uint64], prompts: Sequence[str] | None, needed: str) -> str:
    if prompts is None:
        return f"not looked for: {needed}"
    different = list(dict.fromkeys(prompts))  # as a run evaluates them
    found = np.isin(_hashes(different), captions)
    shared = [prompt for prompt, is_there in zip(different, found, strict=True) if is_there]
    return _some(f"{len(shared):,} of {len(different):,}", shared)


def _sizes(sizes: NDArray[np.int32]) -> str:
    flat = sizes.reshape(-1, 2)
    if not len(flat):
        return "none"
    kinds, counts = np.unique(flat, axis=0, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:SHOWN]
    shown = [f"{kinds[i][0]}x{kinds[i][1]}: {counts[i]:,}" for i in largest]
    others = len(kinds) - len(shown)
    return ", ".join(shown) + (f", {others:,} other sizes" if others else "")


def _values(inspected: InspectedData, names: Sequence[str]) -> str:
    """How often each value occurs in some columns, most frequent first."""
    counts: collections.Counter[str] = collections.Counter()
    for name in names:
        for batch in inspected.source.facts([name]).to_batches(FACTS):
            counts.update(map(str, batch.column(0).to_pylist()))
    shown = [f"{value}: {count:,}" for value, count in counts.most_common(SHOWN)]
    others = len(counts) - len(shown)
    return (", ".join(shown) or "not named") + (f", {others:,} others" if others else "")


def _some(count: str, names: Sequence[str]) -> str:
    """A count, and the first few names."""
    if not names:
        return count
    return f"{count}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"


def _hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """A hash of each text, equal for texts that differ only in case and white space; uint64, (N,)."""
    normal = (" ".join(text.split()).casefold().encode() for text in texts)
    numbers = (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") for text in normal)
    return np.fromiter(numbers, dtype=np.uint64, count=len(texts))
