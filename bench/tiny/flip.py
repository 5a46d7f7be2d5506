"""``python -m bench.tiny.flip``: flip a share of the votes of preference pairs, to test robustness to label noise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from bench.core.errors import UserError
from bench.core.files import replace_file
from bench.core.parquet import read_schema
from bench.core.progress import shortened
from bench.core.randomness import permutation
from bench.tiny import ASSETS
from bench.tiny.commands import refusing


def flip_votes(source: Path, output: Path, *, share: float, seed: int) -> None:
    """Write ``source`` with a share of its labels flipped; a larger share flips the same pairs and others in addition.

    Args:
        source: preference pairs, a Parquet file without ties.
        share: share of the pairs to flip, 0 to 1.
        seed: decides which pairs are flipped.

    Raises:
        UserError: ``source`` is not a Parquet file, has no labels, or one that is not 0 or 1.
    """
    if "label_0" not in read_schema(source).names:
        raise UserError(f"{source} has no column 'label_0', the votes to flip; give preference pairs")
    table = pq.read_table(source)
    votes = table["label_0"].to_pylist()
    if strange := [vote for vote in votes if vote not in (0, 1)]:
        raise UserError(
            f"{source} has a vote label_0 of {shortened(repr(strange[0]), 40)}; give pairs whose votes are 0 or 1, without ties"
        )
    labels = np.array(votes, dtype=np.float64)
    chosen = permutation(len(table), "flipped votes", seed)[: round(share * len(table))].numpy()
    labels[chosen] = 1 - labels[chosen]
    place = table.schema.get_field_index("label_0")
    column = pa.array(labels).cast(table.schema.field(place).type)
    flipped = table.set_column(place, "label_0", column)
    replace_file(output, lambda partial: pq.write_table(flipped, partial))


@refusing
def main(
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the votes to flip.")],
    output: Annotated[Path, typer.Option(help="Parquet file to write.")],
    source: Annotated[Path, typer.Option(help="Preference pairs.", exists=True, dir_okay=False)] = ASSETS
    / "preferences.parquet",
    seed: Annotated[int, typer.Option(help="Seed that decides which votes are flipped.")] = 0,
) -> None:
    """Flip a share of the votes of preference pairs."""
    flip_votes(source, output, share=share, seed=seed)


if __name__ == "__main__":
    typer.run(main)
