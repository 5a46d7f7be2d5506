"""How far evaluation prompts and training seeds decide the order of a report's rows by gold, from run folders of the tiny world.

python docs/reliability.py runs
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from reports.records import collect

Floats = NDArray[np.float64]
SPLITS = 1000
BEST = 4


def gains(runs: Path) -> dict[str, dict[int, Floats]]:
    """By row, placebos included, and training seed: how much more gold than the base's the images of each prompt have, (prompts,)."""
    records = collect(runs)
    base = records.base.scores["gold"][0]
    return {
        row.label: dict(zip(row.seeds, (row.scores["gold"] - base).mean(axis=2), strict=True))
        for row in records.rows
        if row.seeds
    }


def between_halves(means: Floats, splits: int = SPLITS) -> Floats:
    """Rank correlations of the rows' gains on two halves of the prompts, one for each random split.

    The weights are the same in both halves, so that differences between training seeds do not count.

    Args:
        means: gains of each row on each prompt, (rows, prompts).
        splits: how many splits are drawn.
    """
    found = []
    for split in range(splits):
        order = np.random.default_rng(split).permutation(means.shape[1])
        one, other = (means[:, part].mean(axis=1) for part in np.array_split(order, 2))
        found.append(spearmanr(one, other).statistic)
    return np.array(found)


def orders(by_row: Mapping[str, Mapping[int, Floats]]) -> list[tuple[tuple[int, ...], list[str]]]:
    """The order of rows, best first, by each set of some, but not all, of the seeds that all of them have."""
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in by_row.values())))
    sets = itertools.chain.from_iterable(itertools.combinations(seeds, size) for size in range(1, len(seeds)))
    return [(chosen, ranked({name: _over(by_row[name], chosen) for name in by_row})) for chosen in sets]


def ranked(means: Mapping[str, Floats]) -> list[str]:
    """Names of rows, best first."""
    return sorted(means, key=lambda name: -float(means[name].mean()))


def _over(by_seed: Mapping[int, Floats], seeds: Iterable[int]) -> Floats:
    mean: Floats = np.mean([by_seed[seed] for seed in seeds], axis=0)
    return mean


def lines(by_row: Mapping[str, Mapping[int, Floats]]) -> Sequence[str]:
    """What is printed."""
    means = {name: _over(by_seed, by_seed) for name, by_seed in by_row.items()}
    halves = between_halves(np.stack(list(means.values())))
    low, middle, high = np.quantile(halves, [0.05, 0.5, 0.95])
    best = ranked(means)[:BEST]
    return [
        f"{len(means)} rows: rank correlation between halves of the prompts {middle:.2f}, and from {low:.2f} to {high:.2f} in",
        f"nine of ten of {SPLITS} random splits",
        *(
            f"seeds {', '.join(map(str, chosen))}: {' > '.join(order)}"
            for chosen, order in orders({name: by_row[name] for name in best})
        ),
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines(gains(Path(sys.argv[1])))) + "\n")
