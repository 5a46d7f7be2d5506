"""Tables without any effect: how many carry a mark.  ``python tests/statistics/nulls.py 2000`` prints the cells."""

from __future__ import annotations

import sys

import numpy as np

from reports.crossed import Crossed
from reports.seed_variance import Array
from reports.statistics import estimate_means

ROWS, JUDGES = 27, 5


def false_marks(
    seeds: int, tables: int, *, ratio: float, alike: float, prompts: int = 50, seed: int = 0
) -> tuple[float, float]:
    """Shares of tables with a mark in the primary column, and with one anywhere else, after Holm's adjustment of each family.

    Args:
        seeds: of every row; with 1, every other row has one seed and the others have three.
        tables: how many.
        ratio: see `simulation.Cell`.
        alike: correlation between judges of prompts', seeds' and rests' effects.
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


def _rows(seeds: int, tables: int, ratio: float, alike: float, prompts: int, random: np.random.Generator) -> Crossed:
    counts = np.full(ROWS, float(seeds)) if seeds > 1 else np.where(np.arange(ROWS) % 2, 3.0, 1.0)
    most = int(counts.max())
    shape = (tables, JUDGES, ROWS, most, prompts)

    def effects(*sizes: int) -> Array:
        common = random.normal(size=(tables, 1, *sizes))
        return np.asarray(alike**0.5 * common + (1 - alike) ** 0.5 * random.normal(size=(tables, JUDGES, *sizes)))

    table = 0.5**0.5 * (effects(ROWS, 1, prompts) + effects(ROWS, most, prompts))
    table = table + (ratio / prompts) ** 0.5 * effects(ROWS, most, 1)
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


if __name__ == "__main__":
    for number in (1, 3, 5):
        for part in (0.0, 1.0, 3.0):
            for together in (0.3, 0.8):
                marks = false_marks(number, int(sys.argv[1]), ratio=part, alike=together)
                sys.stdout.write(f"{number} {part} {together} {marks[0]:.3f} {marks[1]:.3f}\n")
