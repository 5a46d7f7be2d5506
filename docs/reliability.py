"""How reliably the tiny world ranks methods: the figures of docs/findings.md, from run folders.

python docs/reliability.py runs
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from reports.records import collect

Floats = NDArray[np.float64]
SPLITS = 1000


def gains(runs: Path) -> dict[str, Floats]:
    """By row, how much more gold its images have than those of the base, (seeds, prompts)."""
    records = collect(runs)
    base = records.base.scores["gold"][0]
    return {row.label: (row.scores["gold"] - base).mean(axis=2) for row in records.rows}


def between_halves(means: Floats, splits: int = SPLITS) -> Floats:
    """Rank correlations of the rows' gains on two halves of the prompts, one for each random split.

    Args:
        means: gains of each row on each prompt, (rows, prompts).
        splits: how many splits are drawn.
    """
    prompts, found = means.shape[1], []
    for split in range(splits):
        order = np.random.default_rng(split).permutation(prompts)
        one, other = (means[:, part].mean(axis=1) for part in np.array_split(order, 2))
        found.append(spearmanr(one, other).statistic)
    return np.array(found)


def orders(by_row: Mapping[str, Floats], names: Sequence[str]) -> list[tuple[tuple[int, ...], list[str]]]:
    """The order of some rows, best first, by each set of seeds that leaves at least one seed to others."""
    seeds = min(len(by_row[name]) for name in names)
    sets = [each for size in range(1, seeds) for each in itertools.combinations(range(seeds), size)]
    return [(chosen, sorted(names, key=lambda name: -by_row[name][list(chosen)].mean())) for chosen in sets]


def main() -> None:
    by_row = gains(Path(sys.argv[1]))
    means = np.stack([each.mean(axis=0) for each in by_row.values()])
    halves = between_halves(means)
    low, middle, high = np.quantile(halves, [0.05, 0.5, 0.95])
    lines = [
        f"{len(by_row)} rows, {means.shape[1]} prompts: rank correlation between halves of the prompts {middle:.2f}, and from",
        f"{low:.2f} to {high:.2f} in nine of ten of {SPLITS} random splits",
    ]
    best = sorted(by_row, key=lambda name: -by_row[name].mean())[:4]
    lines += [f"seeds {', '.join(map(str, chosen))}: {' > '.join(order)}" for chosen, order in orders(by_row, best)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
