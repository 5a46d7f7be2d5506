"""Tables without any effect: how many carry a mark.  ``python tests/statistics/nulls.py 2000`` prints the cells.

How judges are correlated is measured by ``python tests/statistics/nulls.py FOLDER`` on the rows of a runs folder with several seeds.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

from reports.anova import Crossed
from reports.comparisons import paired
from reports.records import collect
from reports.seed_variance import Array
from reports.statistics import estimate_means

ROWS, JUDGES = 27, 5
MEASURED = (0.45, 0.89)
"""Correlations between the five judges of the tiny world on the runs of docs/readme-study.tar.xz (sft, dpo, inpo, smpo and their
placebos, three seeds, 200 prompts), means over the pairs of judges: of the effects of prompts and images, and of training seeds."""
CELLS = (MEASURED, (0.8, 0.8))


def false_marks(
    seeds: int, tables: int, *, ratio: float, alike: tuple[float, float], prompts: int = 50, seed: int = 0
) -> tuple[float, float]:
    """Shares of tables with a mark in the primary column, and with one anywhere else, after Holm's adjustment of each family.

    Args:
        seeds: of every row; with 1, every other row has one seed and the others have three.
        tables: how many.
        ratio: see `simulation.Cell`.
        alike: correlations between judges: of the effects of prompts and the rest, and of seeds.
        prompts: P.
        seed: of the random numbers.
    """
    random = np.random.default_rng(seed)
    first, others = [], []
    for start in range(0, tables, 50):
        count = min(50, tables - start)
        values = estimate_means(_rows(seeds, count, ratio, alike, prompts, random)).p_values()
        first.append(_holm_smallest(values[:, 0]))
        others.append(_holm_smallest(values[:, 1:].reshape(count, -1)))
    return float((np.concatenate(first) < 0.05).mean()), float((np.concatenate(others) < 0.05).mean())


def _holm_smallest(values: Array) -> Array:
    """The smallest adjusted p value of each table: Holm's first step is Bonferroni's."""
    return np.asarray(values.min(axis=-1) * values.shape[-1])


def _rows(
    seeds: int, tables: int, ratio: float, alike: tuple[float, float], prompts: int, random: np.random.Generator
) -> Crossed:
    counts = np.full(ROWS, float(seeds)) if seeds > 1 else np.where(np.arange(ROWS) % 2, 3.0, 1.0)
    most = int(counts.max())
    shape = (tables, JUDGES, ROWS, most, prompts)

    def effects(common: float, *sizes: int) -> Array:
        shared = random.normal(size=(tables, 1, *sizes))
        return np.asarray(common**0.5 * shared + (1 - common) ** 0.5 * random.normal(size=(tables, JUDGES, *sizes)))

    table = 0.5**0.5 * (effects(alike[0], ROWS, 1, prompts) + effects(alike[0], ROWS, most, prompts))
    table = table + (ratio / prompts) ** 0.5 * effects(alike[1], ROWS, most, 1)
    assert table.shape == shape
    present = (np.arange(most) < counts[:, None])[..., None]
    of_prompts = np.where(present, table, 0).sum(axis=3) / counts[:, None]
    of_seeds, mean = table.mean(axis=4), of_prompts.mean(axis=3)
    own = np.maximum(counts - 1, 1)
    prompt_square = counts * ((of_prompts - mean[..., None]) ** 2).sum(axis=3) / (prompts - 1)
    seed_square = prompts * np.where(present[..., 0], (of_seeds - mean[..., None]) ** 2, 0).sum(axis=3) / own
    rest = table - of_prompts[..., None, :] - of_seeds[..., None] + mean[..., None, None]
    rest_square = np.where(present, rest**2, 0).sum(axis=(3, 4)) / (own * (prompts - 1))
    return Crossed(mean, prompt_square, seed_square, rest_square, counts, prompts)


def measured(runs: Path) -> tuple[float, float]:
    """Mean correlations between judges of the effects of prompts and images, and of training seeds, in rows with several seeds."""
    records = collect(runs)
    within, seeds = [], []
    for row in records.rows:
        if len(row.seeds) > 1:
            pairs = [paired(row, records.base, metric.name) for metric in records.metrics]
            tables = np.stack([(one - other).mean(axis=2) for one, other in pairs])
            tables = tables / tables.std(axis=(1, 2), keepdims=True)
            of_seeds = tables.mean(axis=2, keepdims=True)
            within.append((tables - of_seeds).reshape(len(tables), -1))
            seeds.append((of_seeds - of_seeds.mean(axis=1, keepdims=True))[..., 0])
    found = [np.corrcoef(np.concatenate(each, axis=1)) for each in (within, seeds)]
    above = np.triu_indices(len(found[0]), k=1)
    return float(found[0][above].mean()), float(found[1][above].mean())


def main(tables: int) -> None:
    """One line per cell."""
    for number, part, alike in itertools.product((1, 3, 5), (0.0, 1.0, 3.0), CELLS):
        marks = false_marks(number, tables, ratio=part, alike=alike)
        sys.stdout.write(f"{number} {part} {alike} {100 * marks[0]:.2f} {100 * marks[1]:.2f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        main(int(sys.argv[1]))
    else:
        sys.stdout.write("{:.2f} {:.2f}\n".format(*measured(Path(sys.argv[1]))))
