"""Preference data as Parquet, with how it was made in the schema's metadata."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.core.chunks import batch_slices
from bench.core.errors import UserError
from bench.core.files import replace_file
from bench.core.locks import exclusive
from bench.core.values import differing
from bench.data.preferences import PreferenceData
from bench.data.reading import InspectedData
from bench.data.sources.labelled import LABEL
from bench.data.sources.parquet import PROVENANCE, open_parquet

ROWS = 64
"""Rows per row group."""
FOUND = "found"
"""The part of a provenance step that is known only when the work is done."""

Step = dict[str, Any]
"""A provenance step: ``command``, its arguments, and under ``found`` its results; JSON values only."""


def already_made(output: Path, step: Step, advice: str = "delete it, or give another --output") -> bool:
    """Whether the file exists and was made by the same step.

    Args:
        output: the file.
        step: what would make it.
        advice: what to do where another step made it.

    Raises:
        UserError: another step made it.
    """
    if not output.exists():
        return False
    source = open_parquet(output, {})
    steps = source.provenance if source else ()
    wanted = json.loads(json.dumps({**step, FOUND: {}}))
    fields = differing({**steps[-1], FOUND: {}}, wanted) if steps else ["how it was made, which it does not record"]
    if fields:
        raise UserError(f"{output} holds data that differs in {', '.join(fields)}; {advice}")
    return True


def work_folder(output: Path) -> Path:
    """Where an unfinished output keeps its shards, so the same command resumes."""
    return output.with_name(f".{output.name}.work")


def held(output: Path) -> AbstractContextManager[None]:
    """A lock on an output and its work folder; a second command is refused.

    Raises:
        UserError: the file's name does not end in ``.parquet``, or another process writes it.
    """
    if output.suffix != ".parquet":
        raise UserError(f"--output {str(output)!r} must end in .parquet")
    lock = output.with_name(f".{output.name}.lock")
    return exclusive(lock, f"writes {output}; wait for it, or give another --output")


def write_data(output: Path, tables: Iterable[pa.Table], provenance: Sequence[Step]) -> None:
    """Write tables, one per row group, as one Parquet file, atomically."""

    def write(partial: Path) -> None:
        with contextlib.ExitStack() as stack:
            writer = None
            for table in tables:
                if writer is None:
                    told = table.schema.with_metadata({PROVENANCE: json.dumps(list(provenance)).encode()})
                    writer = stack.enter_context(pq.ParquetWriter(partial, told))
                writer.write_table(table.cast(writer.schema))

    replace_file(output, write)


def scored_tables(
    inspected: InspectedData,
    data: PreferenceData,
    scores: Mapping[str, NDArray[np.float64]],
    labels: NDArray[np.float64] | None,
) -> Iterator[pa.Table]:
    """The kept rows with all their columns and new scores; ``label_0`` is replaced when ``labels`` is given."""
    source = inspected.source
    added: dict[str, NDArray[np.float64]] = {
        f"score_{name}_{place}": values[:, place] for name, values in scores.items() for place in range(data.width)
    }
    if labels is not None:
        added[LABEL] = labels
    facts = source.facts([name for name in source.fact_names if name not in added]).take(inspected.kept)
    for piece in batch_slices(len(data), ROWS):
        columns = dict(zip(facts.column_names, facts.slice(piece.start, piece.stop - piece.start).columns, strict=True))
        images = _image_columns(data.encoded[piece])
        yield pa.table({**columns, **images, **{name: values[piece] for name, values in added.items()}})


def pair_tables(
    data: PreferenceData, rows: NDArray[np.int64], winners: NDArray[np.int64], losers: NDArray[np.int64]
) -> Iterator[pa.Table]:
    """Preference pairs of images of the data's rows, image 0 being the one that comes first in its row; scores and sources are kept.

    Args:
        rows: row numbers, ascending, (M,).
        winners: which image of each is preferred, (M,).
        losers: the image it is preferred to, (M,).
    """
    sides = np.sort(np.stack([winners, losers], axis=1), axis=1)
    labels = (winners < losers).astype(np.float64)
    for piece in batch_slices(len(rows), ROWS):
        mine = list(zip(rows[piece].tolist(), sides[piece].tolist(), strict=True))
        images = [tuple(data.encoded[row][side] for side in both) for row, both in mine]
        columns: dict[str, Any] = {"caption": [data.captions[row] for row, _ in mine], **_image_columns(images)}
        columns[LABEL] = labels[piece]
        for place in (0, 1):
            if data.sources is not None:
                columns[f"source_{place}"] = [data.sources[row][both[place]] for row, both in mine]
            for name, values in data.scores.items():
                columns[f"score_{name}_{place}"] = values[rows[piece], sides[piece, place]]
        yield pa.table(columns)


def tables_against(data: PreferenceData, better: Sequence[bytes]) -> Iterator[pa.Table]:
    """Pairs of one encoded image per row and each image of that row, image 0 being the one and the preferred.

    Args:
        data: lists of images.
        better: an encoded image for each row, N.
    """
    for piece in batch_slices(len(data), ROWS):
        rows = [(row, image) for row in range(piece.start, piece.stop) for image in data.encoded[row]]
        images = _image_columns([(better[row], image) for row, image in rows])
        yield pa.table({"caption": [data.captions[row] for row, _ in rows], **images, LABEL: np.ones(len(rows))})


def candidate_tables(data: PreferenceData, maker: str) -> Iterator[pa.Table]:
    """Unlabelled lists of images, all by one generator."""
    for piece in batch_slices(len(data), ROWS):
        images = _image_columns(data.encoded[piece])
        makers = {f"source_{place}": [maker] * (piece.stop - piece.start) for place in range(data.width)}
        yield pa.table({"caption": data.captions[piece], **images, **makers})


def _image_columns(images: Sequence[tuple[bytes, ...]]) -> dict[str, pa.Array]:
    return {f"jpg_{place}": pa.array(column, pa.binary()) for place, column in enumerate(zip(*images, strict=True))}
