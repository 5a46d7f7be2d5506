"""Prints the coverage of every cell: ``python tests/statistics/grid.py means`` or ``shares``, with the number of tables."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from simulation import Cell, mean_coverage, share_coverage

SEEDS, PROMPTS, RATIOS, SHARES = (1, 2, 3, 5), (50, 200, 1000), (0, 0.5, 1, 3, 10), (0.5, 0.8, 0.95, 0.99)


def main(kind: str, tables: int) -> None:
    """One line per cell."""
    for share in (None,) if kind == "means" else SHARES:
        for prompts, unequal, seeds, ratio in itertools.product(PROMPTS, (False, True), SEEDS, RATIOS):
            cell = Cell(seeds, prompts, ratio, unequal, share)
            coverage, width = (mean_coverage(cell, tables), 0.0) if share is None else share_coverage(cell, tables)
            print(share, prompts, unequal, seeds, ratio, f"{100 * coverage:.2f} {width:.5f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
