"""Evaluation prompts: a registered set, or a file."""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import UserError
from bench.core.strict import check_encoding, parse_json, quoted, read_utf8
from bench.prompts.tables import PROMPT_COLUMNS, READERS, Rows, check_text, column_of

ADVICE = "give a text file with one prompt per line, a JSON list, or a table with a column 'prompt'"


def read_prompts(path: Path) -> list[str]:
    """Read prompts, in the order of the file.

    Args:
        path: a text file with one prompt per line (empty lines do not count), a JSON list of strings, or a table (CSV, TSV, JSON,
            JSON lines, Parquet) with a column of `bench.prompts.tables.PROMPT_COLUMNS`.

    Raises:
        UserError: the file is missing or empty, a row has no prompt, or the file has another format.
    """
    suffix = Path(check_encoding(str(path))).suffix.lower()
    rows = READERS[suffix](path) if suffix in READERS else None
    prompts = _listed(path) if rows is None else _column(rows, path)
    if not prompts:
        raise UserError(f"prompts {str(path)!r} contain no prompt; {ADVICE}")
    for number, prompt in enumerate(prompts, start=1):
        check_text(prompt, f"{path}: entry {number}")
    return prompts


def other_columns(path: Path) -> list[str]:
    """The columns of a table besides that of its prompts; none of a list, or of a Parquet file, of which only the prompts are read."""
    suffix = path.suffix.lower()
    rows = READERS[suffix](path) if suffix in READERS else None
    if not rows:
        return []
    used = column_of(PROMPT_COLUMNS, rows, path)
    return [name for name in rows[0] if name != used]


def _column(rows: Rows, path: Path) -> list[str]:
    column = column_of(PROMPT_COLUMNS, rows, path)
    prompts = [row.get(column) for row in rows]
    for number, prompt in enumerate(prompts, start=1):
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(
                f"{path}: row {number} has no text in column {column!r}, but {quoted(prompt)}; every row needs a prompt"
            )
    return [str(prompt) for prompt in prompts]


def _listed(path: Path) -> list[str]:
    text = read_utf8(path)
    prompts = parse_json(text, str(path)) if path.suffix.lower() == ".json" else _lines(text, path)
    if not isinstance(prompts, list):
        raise UserError(f"prompts {str(path)!r} are not a list of prompts; {ADVICE}")
    for number, prompt in enumerate(prompts, start=1):
        if not isinstance(prompt, str):
            raise UserError(f"{path}: entry {number} is {quoted(prompt)}, not text; {ADVICE}")
    return prompts


def _lines(text: str, path: Path) -> list[str]:
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    for number, line in enumerate(lines, start=1):
        if "\r" in line:  # the end of a line on old systems, where a whole file would be one prompt
            raise UserError(
                f"{path}: entry {number} holds a carriage return ({quoted(line)}); end lines with a line feed"
            )
    return lines
