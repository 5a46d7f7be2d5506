"""Datasets of the hub that are stored as Parquet."""

from __future__ import annotations

import re
from pathlib import Path

from bench.core.errors import UserError
from bench.core.hub import HUB_ID, hub_folder

SPLIT_OF = re.compile(rf"(?P<name>{HUB_ID.pattern})(:(?P<split>[\w.-]+))?")
SHARD = re.compile(r"(?P<split>.+?)-\d+-of-(?P<count>\d+)")
FILES = (".parquet", ".jsonl", ".json", ".arrow")
DEFAULT_SPLIT = "train"


def fetch_dataset(source: str) -> list[Path]:
    """The Parquet files of one split of a hub dataset, downloaded once.

    Args:
        source: ``owner/name:split``, or ``owner/name`` for its split ``train``.

    Raises:
        UserError: this is not a hub id, the hub cannot be reached and nothing is cached, or the split has no Parquet files or
            lacks some.
    """
    found = SPLIT_OF.fullmatch(source)
    if found is None or source.endswith(FILES):
        raise UserError(
            f"preference data {source!r} does not exist; give a Parquet file or a folder of them, a JSONL file, or a hub id"
        )
    split = found["split"] or DEFAULT_SPLIT
    patterns = [f"{start}{split}{end}" for start in ("", "*/") for end in ("-*.parquet", ".parquet", "/*.parquet")]
    complaint = f"preference data {source!r} is not a local path and cannot be downloaded from the hub"
    folder = hub_folder(found["name"], patterns, kind="dataset", complaint=complaint)
    return split_files(folder, split, source)


def split_files(folder: Path, split: str, source: str) -> list[Path]:
    """The Parquet files of a split: ``<split>-00000-of-00012.parquet``, ``<split>.parquet`` or any in a folder ``<split>``.

    Raises:
        UserError: there are none, or fewer than their names say.
    """
    splits: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        splits.setdefault(_split(file), []).append(file)
    files = splits.get(split)
    if files is None:
        raise UserError(
            f"{source}: split {split!r} has no Parquet files (splits: {', '.join(splits) or 'none'}); "
            "give another as owner/name:split, or download the data and give its folder"
        )
    shard = SHARD.match(files[0].name)
    if shard and len(files) < int(shard["count"]):
        raise UserError(
            f"{source}: only {len(files)} of {int(shard['count'])} files of split {split!r} are on this machine; "
            "the download is incomplete, run the same command again with a network"
        )
    return files


def _split(file: Path) -> str:
    shard = SHARD.match(file.name)
    if shard:
        return shard["split"]
    return file.parent.name if file.stem.isdigit() else file.stem
