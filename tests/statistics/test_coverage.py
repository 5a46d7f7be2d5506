"""Coverage of the intervals on simulated tables with known truth; ``grid.py`` prints every cell of docs/statistics.md."""

from __future__ import annotations

import itertools

import pytest
from nulls import MEASURED, false_marks
from simulation import Cell, mean_coverage, share_coverage

CELLS = [Cell(*cell) for cell in itertools.product((1, 2, 3, 5), (50, 200, 1000), (0, 0.5, 1, 3, 10), (False, True))]


@pytest.mark.parametrize("cell", [Cell(1, 200, 1, False), Cell(2, 200, 1, True), Cell(3, 50, 0, False)], ids=str)
def test_a_few_cells_of_means(cell: Cell) -> None:
    # Three standard deviations of 300 tables with one counted row are 3.8 points, with 27 less than 1.
    assert 0.91 <= mean_coverage(cell, 300) <= 0.985


def test_a_cell_of_shares() -> None:
    coverage, _ = share_coverage(Cell(2, 50, 1, False, 0.8), 100)
    assert 0.92 <= coverage <= 0.985


@pytest.mark.slow
def test_all_cells_of_means() -> None:
    found = {cell: mean_coverage(cell, 2000) for cell in CELLS}
    assert [cell for cell, coverage in found.items() if not 0.93 <= coverage <= 0.97] == []


@pytest.mark.slow
def test_tables_of_a_few_rows() -> None:
    """The page says that they cover 94.4 % or more up to a ratio of 1, and 89.6 % at worst beyond it."""
    few = [
        Cell(seeds, 200, ratio, False, rows=rows)
        for seeds, ratio, rows in itertools.product((2, 3), (0, 1, 10), (1, 3))
    ]
    found = {cell: mean_coverage(cell, 2000) for cell in few}
    assert [cell for cell, coverage in found.items() if coverage < (0.94 if cell.ratio <= 1 else 0.89)] == []


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_tables_without_an_effect_have_few_marks(seeds: int) -> None:
    # 6 % and two standard errors of 2,000 tables
    primary, elsewhere = false_marks(seeds, 2000, ratio=1.0, alike=MEASURED)
    assert max(primary, elsewhere) <= 0.07
