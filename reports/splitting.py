"""Tables that are too wide for a line, as several tables."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

from reports.text_table import Cell, TextTable


def split_columns(grid: TextTable, width: int, cell_width: Callable[[Cell], int]) -> Iterator[TextTable]:
    """The grid as the fewest tables that fit a line, with the columns in their order; row names may take a third of the line.

    Args:
        grid: the table.
        width: of a line, in characters.
        cell_width: of a cell.
    """
    names = min(max((len(label) for label, _ in grid.rows), default=0), width // 3)
    starts, used = [0], names
    for place, heading in enumerate(grid.columns):
        cells = [Cell(heading), *(row[place] for _, row in grid.rows)]
        needed = 2 + max(map(cell_width, cells))
        if place > starts[-1] and used + needed > width:
            starts.append(place)
            used = names
        used += needed
    for start, end in itertools.pairwise([*starts, len(grid.columns)]):
        rows = tuple((label, row[start:end]) for label, row in grid.rows)
        last = end == len(grid.columns)
        notes = grid.notes if last else ()
        yield dataclasses.replace(grid, columns=grid.columns[start:end], rows=rows, notes=notes)
