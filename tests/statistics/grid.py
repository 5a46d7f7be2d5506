"""Prints the coverage of every cell: ``python tests/statistics/grid.py means 2000 FILE``, ``shares``, or ``few`` for tables of a few rows.

Each cell is a line of the file when it is done, and a second call computes only what is missing from it.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from simulation import Cell, mean_coverage, share_coverage

SEEDS, PROMPTS, RATIOS, SHARES = (1, 2, 3, 5), (50, 200, 1000), (0, 0.5, 1, 3, 10), (0.5, 0.8, 0.95, 0.99)
FEW_ROWS = (1, 2, 3, 6)


def cells(kind: str) -> Iterator[Cell]:
    """The cells, cheap ones first."""
    if kind == "few":
        for rows, seeds, share, ratio in itertools.product(FEW_ROWS, SEEDS[1:], (None, 0.6), RATIOS):
            yield Cell(seeds, 200, ratio, unequal=False, share=share, rows=rows)
        return
    for prompts, unequal, share in itertools.product(PROMPTS, (False, True), (None,) if kind == "means" else SHARES):
        for seeds, ratio in itertools.product(SEEDS, RATIOS):
            yield Cell(seeds, prompts, ratio, unequal, share)


def main(kind: str, tables: int, file: Path) -> None:
    """One line per cell: the cell, coverage in per cent, and the width where seeds do not matter."""
    done = {line["cell"] for line in map(json.loads, file.read_text().splitlines())} if file.exists() else set()
    for cell in cells(kind):
        if str(cell) in done:
            continue
        coverage, width = (mean_coverage(cell, tables), None) if cell.share is None else share_coverage(cell, tables)
        line = {"cell": str(cell), "tables": tables, "coverage": round(100 * coverage, 2), "width": width}
        with file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
