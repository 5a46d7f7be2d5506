"""Score a folder of images with any metrics: what ``bench score`` does.

``scores.parquet`` (or ``.csv``) has one row per image and metric; ``scores.records.jsonl`` beside it grows while scoring,
and a second call computes only what is missing from it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from bench.core.errors import UserError, listed
from bench.core.escaping import cell
from bench.core.files import file_digest, keep_lines, replace_file
from bench.core.images import UnreadableImageError, open_image
from bench.core.locks import exclusive
from bench.core.precision import this_device
from bench.core.progress import Progress, say
from bench.records.protocol import scorer_signature
from bench.records.scores import FolderScores, MetricScores, PromptedImage
from bench.scoring.image_prompts import read_image_prompts
from bench.scoring.images import find_images, left_out
from bench.scoring.loop import Judge, refuse_constant, score_images
from bench.scoring.metric import recorded_identity
from bench.scoring.records import read_records

COLUMNS = pa.schema(
    [
        ("file", pa.string()),
        ("prompt", pa.string()),
        ("metric", pa.string()),
        ("score", pa.float64()),
        ("problem", pa.string()),
        ("image_digest", pa.string()),
        ("metric_signature", pa.string()),
        ("metric_identity", pa.string()),
    ]
)
"""Columns of the output: score is raw, and empty if problem says why the image could not be read; identity is JSON."""


def _write_csv(table: pa.Table, path: Path) -> None:
    """Write a table whose texts a spreadsheet does not compute."""
    columns = [
        pa.array([None if text is None else cell(text) for text in column.to_pylist()], pa.string())
        if pa.types.is_string(column.type)
        else column
        for column in table.columns
    ]
    pyarrow.csv.write_csv(pa.table(columns, names=table.schema.names), path)


def _names_in_parquet(table: Path) -> list[str]:
    try:
        return list(pq.read_schema(table).names)
    except (OSError, pa.ArrowInvalid):
        return []


def _names_in_csv(table: Path) -> list[str]:
    if not table.is_file():
        return []
    with table.open("rb") as stream:
        heading = stream.readline().decode(errors="replace")
    return next(csv.reader([heading]), [])


class TableFormat(NamedTuple):
    """A kind of file for a table.

    Attributes:
        write: writes a table to a path.
        column_names: reads the names of its columns; an empty list for a file that is not a table.
    """

    write: Callable[[Any, Path], object]
    column_names: Callable[[Path], list[str]]


TABLES: Mapping[str, TableFormat] = {
    ".parquet": TableFormat(pq.write_table, _names_in_parquet),
    ".csv": TableFormat(_write_csv, _names_in_csv),
}
"""The formats of the output by suffix."""
KEY = ("file", "image", "prompt")
"""What identifies an image in the records: its path in the folder, the digest of its file, and its prompt."""
FOLDER = "folder"
"""What a record holds besides: the absolute path of the folder; those of older versions lack it."""
SHOWN = 5
"""Largest number of names in a sentence."""


def score_folder(folder: Path, prompts: Path | None, metrics: Mapping[str, Judge], output: Path) -> FolderScores:
    """Score every image under a folder and write the table; resumes an interrupted call.

    Images that cannot be read are named in the result and in the table, and the others are scored.

    Args:
        folder: the images; subfolders are searched too.
        prompts: see `bench.scoring.image_prompts.read_image_prompts`; not needed when no metric reads prompts.
        metrics: scorers by registered name; one at a time is in memory.
        output: a ``.parquet`` or ``.csv`` file.

    Raises:
        UserError: images, prompts or output are unsuitable, the output holds the scores of another folder, no image can be read,
            or a metric is broken.
    """
    check_output(output)
    files = find_images(folder)
    if others := left_out(folder, files):
        say(f"note: {len(others)} files in {folder} are not read as images: {listed(others, SHOWN)}")
    asked = prompts is not None or any(judge.kind.reads_prompt for judge in metrics.values())
    texts = read_image_prompts(prompts, folder, files) if asked else [""] * len(files)
    records = _records(output)
    with exclusive(
        records.with_name(f".{records.name}.lock"), f"writes {output}; wait for it, or give another --output"
    ):
        images, unreadable = _read(folder, dict(zip(files, texts, strict=True)))
        if not images:
            raise UserError(f"none of the {len(files)} images in {folder} can be read; the first: {_first(unreadable)}")
        _claim(records, folder, images, output)
        scored = [_score(folder, records, name, judge, texts, images) for name, judge in metrics.items()]
        result = FolderScores(images, unreadable, scored)
        table = _table(result, dict(zip(files, texts, strict=True)))
        replace_file(output, lambda partial: TABLES[output.suffix].write(table, partial))
    return result


def check_output(output: Path) -> None:
    """Raise a `UserError` unless the suffix names a format that can be written, and only files of this command would be replaced.

    A table of this command has its records beside it.
    """
    if output.suffix not in TABLES:
        raise UserError(f"--output {str(output)!r} must end in {' or '.join(TABLES)}")
    own = _records(output).exists() and TABLES[output.suffix].column_names(output) == COLUMNS.names
    if output.exists() and not own:
        raise UserError(f"{output} exists and was not written by this command; delete it, or give another --output")
    _read_records(output)


def _records(output: Path) -> Path:
    return output.with_suffix(".records.jsonl")


def _read_records(output: Path) -> list[dict[str, Any]]:
    """What an earlier call recorded; anything else is refused."""
    advice = f"delete it if nothing else needs it, or give another --output than {output}"
    return read_records(_records(output), KEY, advice)


def _whose(folder: Path) -> str:
    """What records call a folder: its absolute path, as text that can be written."""
    return str(folder.resolve()).encode(errors="backslashreplace").decode()


def _claim(records: Path, folder: Path, images: Sequence[PromptedImage], output: Path) -> None:
    """Make records those of a folder, in which some of the images may have changed since; or of one that was moved there as it is.

    Raises:
        UserError: they are of another folder, whose scores would be lost.
    """
    written, whose = _read_records(output), _whose(folder)
    others = [line for line in written if line.get(FOLDER, whose) != whose]
    here = {tuple(image.key[field] for field in KEY) for image in images}
    if lost := [line for line in others if tuple(line[field] for field in KEY) not in here]:
        raise UserError(
            f"{output} and {records.name} beside it hold the scores of {lost[0][FOLDER]}; give another --output for those of {folder}, "
            "or delete both"
        )
    if any(line.get(FOLDER) != whose for line in written):
        keep_lines(records, [{**line, FOLDER: whose} for line in written])


def _read(folder: Path, prompts: Mapping[str, str]) -> tuple[list[PromptedImage], dict[str, str]]:
    """Decode every image once, so unreadable images are known before any scoring starts."""
    images, unreadable, whose = [], {}, _whose(folder)
    with Progress(f"reading {folder.name}", total=len(prompts)) as progress:
        for file, prompt in prompts.items():
            path = folder / file
            try:
                open_image(path)
                place = (whose, file, file_digest(path), prompt)
                images.append(PromptedImage(path, prompt, dict(zip((FOLDER, *KEY), place, strict=True))))
            except UnreadableImageError as error:
                unreadable[file] = str(error)
            progress.advance()
    return images, unreadable


def _first(unreadable: Mapping[str, str]) -> str:
    file, reason = next(iter(unreadable.items()))
    return f"{file}: {reason}"


def _score(
    folder: Path, records: Path, name: str, judge: Judge, prompts: Sequence[str], images: Sequence[PromptedImage]
) -> MetricScores:
    bound = judge.load(this_device()).for_prompts(prompts)
    identity = recorded_identity(bound)
    signature = scorer_signature(name, identity)
    scores = score_images(records, str(folder), name, bound, signature, images)
    if len({image.key["image"] for image in images}) > 1:
        refuse_constant(name, bound, scores, str(folder))
    return MetricScores(name, bound.info, signature, identity, scores)


def _table(result: FolderScores, prompts: Mapping[str, str]) -> pa.Table:
    rows = []
    for metric in result.metrics:
        scores = {p.key["file"]: (s, p.key["image"]) for p, s in zip(result.pictures, metric.scores, strict=True)}
        identity = json.dumps(metric.identity, sort_keys=True, ensure_ascii=False)
        for file, prompt in prompts.items():
            score, image = scores.get(file, (None, None))
            problem = result.unreadable.get(file)
            rows.append((file, prompt, metric.name, score, problem, image, metric.signature, identity))
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, COLUMNS, strict=True)], schema=COLUMNS
    )
