"""Opening preference data: a file, a folder or a hub id, in one of several layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.core.errors import UserError
from bench.core.inputs import regular
from bench.core.strict import check_encoding, exists
from bench.data.sources.arrow import open_arrow
from bench.data.sources.base import Source
from bench.data.sources.hpd import open_hpd
from bench.data.sources.hub import fetch_dataset
from bench.data.sources.jsonl import open_jsonl
from bench.data.sources.labelled import LABEL, TEXTS, LabelledSource
from bench.data.sources.parquet import ParquetSource, open_parquet

__all__ = ["Source", "open_source"]

PARSED = (".jsonl", ".json")
"""Suffixes of layouts that are not Parquet."""
MAGIC = b"PAR1"
"""How a Parquet file begins."""
ADVICE = "give Parquet files, a metadata.jsonl with image paths, HPDv2's train.json, or a folder that datasets saved"
LAYOUTS = (open_jsonl, open_hpd, open_arrow, open_parquet)
"""Each returns a `Source` for a path in its layout, and None for any other."""


def open_source(source: str | Path, columns: Mapping[str, str] | None = None) -> Source:
    """Open preference data, in any supported layout; only its columns and its size are read yet.

    Args:
        source: a Parquet file or a folder of them, a JSONL file of pairs with image paths or a folder with ``metadata.jsonl``,
            HPDv2's ``train.json`` or ``test.json`` or their folder, a folder that `datasets` saved, or a hub id with its
            split, ``owner/name:split``.
        columns: names of the columns in the data by their names here, for example ``{"caption": "text"}``; a label instead of a
            name, ``{"label_0": "1"}``, applies to every row.

    Raises:
        UserError: there is no such data, it has none of these layouts, a column of ``columns`` is missing or named for two
            images, or ``columns`` sets a label for every row and the data has labels.
    """
    columns = columns or {}
    _refuse_one_image_twice(columns)
    label = TEXTS.get(columns.get(LABEL, ""))
    if label is None:
        return _open(source, columns)
    found = _open(source, {name: column for name, column in columns.items() if name != LABEL})
    if columns[LABEL] in found.names:
        return _open(source, columns)
    if LABEL in found.names:
        raise UserError(f"{source} has a column {LABEL!r}; leave {LABEL}={label:g} out of --columns")
    return LabelledSource(found, label)


def _refuse_one_image_twice(columns: Mapping[str, str]) -> None:
    images: dict[str, str] = {}
    for name, column in columns.items():
        if name.startswith("jpg_") and (other := images.setdefault(column, name)) != name:
            raise UserError(f"--columns gives {other} and {name} the same column {column!r}; each image needs its own")


def _open(source: str | Path, columns: Mapping[str, str]) -> Source:
    path = Path(check_encoding(str(source)))
    if not exists(path):
        return ParquetSource(fetch_dataset(str(source)), columns)
    if _other_layout(regular(path)):
        raise UserError(f"{path} is not preference data in a layout that is read; {ADVICE}")
    for strategy in LAYOUTS:
        found = strategy(path, columns)
        if found is not None:
            return found
    raise UserError(f"{path} holds no preference data; {ADVICE}")


def _other_layout(path: Path) -> bool:
    """Whether it is a file that neither is Parquet nor is called so."""
    if not path.is_file() or path.suffix.lower() in (*PARSED, ".parquet"):
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(len(MAGIC)) != MAGIC
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file that you may read") from error
