"""Tables of prompts: CSV, TSV, JSON, JSON lines and Parquet as rows of Python values."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import UserError, listed
from bench.core.parquet import is_text, plain_type, read_columns, read_schema
from bench.core.strict import check_characters, parse_json, quoted, read_json_strictly, read_utf8

PROMPT_COLUMNS = ("prompt", "caption", "text")
"""Names under which tables hold prompts, the preferred first."""
FILE_COLUMNS = ("file_name", "filename", "file", "image")
"""Names under which tables hold an image's file, the preferred first."""

Rows = list[dict[str, Any]]


def column_of(wanted: Sequence[str], rows: Rows, source: Path) -> str:
    """The first of some names that a table has, as the table spells it; case does not matter.

    Raises:
        UserError: it has none of them, or several with different contents.
    """
    columns = list(rows[0]) if rows else []
    found = [column for name in wanted for column in columns if column.lower() == name]
    for other in found[1:]:
        if any(row.get(other) != row.get(found[0]) for row in rows):
            raise UserError(
                f"{source} has columns {found[0]!r} and {other!r} with different contents; keep one of them"
            )
    if found:
        return found[0]
    raise UserError(
        f"{source} has no column {wanted[0]!r} (or {', '.join(wanted[1:])}); it has {listed(map(str, columns))}"
    )


def _read_separated(source: Path) -> Rows:
    delimiter = "\t" if source.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(read_utf8(source), newline=""), delimiter=delimiter, strict=True)
    try:
        _check_distinct(reader.fieldnames or (), source)
        rows = list(reader)
    except csv.Error as error:
        raise UserError(
            f"{source}: line {reader.line_num} cannot be read ({error}); write a table with a row for each prompt"
        ) from error
    for number, row in enumerate(rows, start=1):
        if None in row:  # csv.DictReader's key for the fields beyond those of the header
            raise UserError(
                f"{source}: row {number} has more fields than the header; quote texts that contain the delimiter"
            )
    return rows


def _read_json(source: Path) -> Rows | None:
    """Rows, or None for a list of prompts."""
    value = read_json_strictly(source)
    if isinstance(value, Mapping):
        return [{"file_name": file, "prompt": prompt} for file, prompt in value.items()]
    is_table = isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)
    return value if is_table else None


def _read_json_lines(source: Path) -> Rows:
    lines = enumerate(read_utf8(source).split("\n"), start=1)
    rows = [parse_json(line, f"{source}: line {number}") for number, line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"{source} does not hold one JSON object per line; write an object with file name and prompt on every line"
        )
    return rows


def _read_parquet(source: Path) -> Rows:
    schema = read_schema(source)
    _check_distinct(schema.names, source)
    wanted = [field for field in schema if field.name.lower() in (*PROMPT_COLUMNS, *FILE_COLUMNS)]
    texts = [field.name for field in wanted if is_text(plain_type(field.type))]
    if any(name.lower() in PROMPT_COLUMNS for name in texts):
        rows: Rows = read_columns(source, texts).to_pylist()
        return rows
    for field in wanted:
        if field.name.lower() in PROMPT_COLUMNS:
            raise UserError(
                f"{source}: column {field.name!r} holds {quoted(str(field.type))[1:-1]}; save the prompts as text (string)"
            )
    return [dict.fromkeys(schema.names)]


def _check_distinct(columns: Iterable[str], source: Path) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise UserError(f"{source} has several columns {twice[0]!r}; keep one of them")


def check_text(prompt: str, place: str) -> None:
    """Raise a `UserError` if a prompt is empty or holds half of a character, which no tokenizer can read.

    Args:
        prompt: the prompt.
        place: file and row, for the message.
    """
    if not prompt.strip():
        raise UserError(f"{place} has an empty prompt; every image needs one")
    if "\0" in prompt:
        raise UserError(f"{place}: the prompt {quoted(prompt)} holds a zero byte; write it as text")
    check_characters(prompt, f"{place}: the prompt")


READERS: Mapping[str, Callable[[Path], Rows | None]] = {
    ".csv": _read_separated,
    ".tsv": _read_separated,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}
"""By suffix; None stands for a list, which `bench.prompts.reading.read_prompts` reads."""
