"""Which prompt belongs to which image of a folder: a list in order, a table by file name, or a text file beside each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from bench.core.errors import UserError, listed
from bench.core.strict import check_characters, check_encoding, quoted, read_utf8
from bench.prompts.reading import read_prompts
from bench.prompts.tables import FILE_COLUMNS, PROMPT_COLUMNS, READERS, Rows, check_text, column_of

SHOWN = 5


def read_image_prompts(source: Path | None, folder: Path, files: Sequence[str]) -> list[str]:
    """The prompt of each image.

    Args:
        source: one of

            * a text file with one prompt per line, or a JSON list of strings, in the order of ``files``;
            * a table (CSV, TSV, JSON lines, JSON, Parquet) with a column of `FILE_COLUMNS`, relative to ``folder``, and
              one of `bench.prompts.tables.PROMPT_COLUMNS`; or a JSON object, file name to prompt;
            * None: each image has a text file of the same name beside it, ``bee.txt`` for ``bee.png``.
        folder: the images' folder.
        files: the images, relative to it, as `bench.scoring.images.find_images` returns them.

    Raises:
        UserError: the source cannot be read, an image has no prompt or two, or a prompt has no image.
    """
    if source is None:
        return _beside(folder, files)
    check_encoding(str(source))
    rows = READERS[source.suffix.lower()](source) if source.suffix.lower() in READERS else None
    return (
        _in_order(read_prompts(source), source, folder, files) if rows is None else _named(rows, source, folder, files)
    )


def _in_order(prompts: list[str], source: Path, folder: Path, files: Sequence[str]) -> list[str]:
    if len(prompts) != len(files):
        raise UserError(
            f"{source} holds {len(prompts)} prompts, {folder} {len(files)} images; give one prompt per image in the order "
            f"of their names, or a table with the columns {FILE_COLUMNS[0]} and {PROMPT_COLUMNS[0]}"
        )
    return prompts


def _beside(folder: Path, files: Sequence[str]) -> list[str]:
    texts = [(folder / file).with_suffix(".txt") for file in files]
    missing = [path.relative_to(folder).as_posix() for path in texts if not path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(files)} images in {folder} have no prompt beside them ({listed(missing, SHOWN)}); "
            "give --prompts FILE, or write such a text file for each image"
        )
    prompts = [read_utf8(path).strip() for path in texts]
    for path, prompt in zip(texts, prompts, strict=True):
        check_text(prompt, str(path))
    return prompts


def _named(rows: Rows, source: Path, folder: Path, files: Sequence[str]) -> list[str]:
    file_column, prompt_column = (column_of(names, rows, source) for names in (FILE_COLUMNS, PROMPT_COLUMNS))
    prompts: dict[str, str] = {}
    known = set(files)
    for number, row in enumerate(rows, start=1):
        file, prompt = row.get(file_column), row.get(prompt_column)
        if not isinstance(file, str) or not isinstance(prompt, str):
            raise UserError(
                f"{source}: file name or prompt is missing in row {number} ({quoted(row)}); every row needs both"
            )
        check_characters(file, f"{source}: row {number}, column {file_column!r}")
        check_text(prompt, f"{source}: row {number}")
        # Windows writes backslashes; elsewhere they can be part of a name.
        name = file if file in known else PurePosixPath(file.replace("\\", "/")).as_posix()
        if name in prompts:
            raise UserError(f"{source} has two prompts for {name}; give one prompt per image")
        prompts[name] = prompt
    without = [file for file in files if file not in prompts]
    if without:
        raise UserError(
            f"{source} has no prompt for {len(without)} of {len(files)} images in {folder} ({listed(without, SHOWN)}); add them"
        )
    strange = [name for name in prompts if name not in known]
    if strange:
        raise UserError(
            f"{source} names {len(strange)} images that are not in {folder} ({listed(strange, SHOWN)}); remove them, or add the "
            "images"
        )
    return [prompts[file] for file in files]
