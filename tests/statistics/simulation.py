"""Tables with known truth, simulated by the thousand, for the slow tests and for docs/statistics.md."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import special

from reports.anova import Crossed
from reports.seed_variance import Array
from reports.statistics import estimate_means, estimate_shares

SPREAD = 0.8
"""Standard deviation of the logarithm of the seed variance between rows, where it differs: most lie within a factor of 5."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the grid.

    Attributes:
        seeds: of the row whose coverage counts; with 1, the other rows have 3.
        prompts: P.
        ratio: ``var(seed) P / var(prompt and rest)``: the seeds' part of the variance of a one-seed mean over the prompts' part.
        unequal: whether the seed variance differs between rows.
        share: the true share; None for means of normal values.
        rows: of a table.
    """

    seeds: int
    prompts: int
    ratio: float
    unequal: bool
    share: float | None = None
    rows: int = 27


def seed_counts(cell: Cell) -> Array:
    """Seeds of every row."""
    counts = np.full(cell.rows, float(max(cell.seeds, 3) if cell.seeds == 1 else cell.seeds))
    if cell.seeds == 1:
        counts[0] = 1
    return counts


def mean_coverage(cell: Cell, tables: int, seed: int = 0, prompt_part: float = 0.5) -> float:
    """Share of 95 % intervals of means that hold the truth.

    The four statistics of a balanced table of normal values are independent, a normal and three chi-squares, so they are drawn
    rather than the table.  ``prompt_part`` of the prompts' variance is common to all seeds; the rest is not.
    """
    random = np.random.default_rng(seed)
    counts, prompts = seed_counts(cell), cell.prompts
    own = np.maximum(counts - 1, 1)
    shape = (tables, cell.rows)
    seed_variance = np.full(shape, cell.ratio / prompts)
    if cell.unequal:
        seed_variance = seed_variance * np.exp(random.normal(scale=SPREAD, size=shape))
    rest = 1 - prompt_part
    rows = Crossed(
        mean=random.normal(size=shape)
        * np.sqrt(prompt_part / prompts + seed_variance / counts + rest / prompts / counts),
        prompt_square=(counts * prompt_part + rest) * random.chisquare(prompts - 1, size=shape) / (prompts - 1),
        seed_square=(prompts * seed_variance + rest) * random.chisquare(own, size=shape) / own,
        rest_square=rest * random.chisquare(own * (prompts - 1), size=shape) / (own * (prompts - 1)),
        seeds=counts,
        prompts=prompts,
    )
    low, high = estimate_means(rows).ends()
    return _counted(cell, (low < 0) & (high > 0))


def share_coverage(cell: Cell, tables: int, seed: int = 0, chunk: int = 100) -> tuple[float, float]:
    """Share of 95 % intervals of shares that hold the truth, and the mean width of some where seeds do not matter.

    A win is a latent normal value above 0: half of its variance within a seed is the prompt's, half the rest's.
    """
    assert cell.share is not None
    random = np.random.default_rng(seed)
    hits, widths = [], []
    for start in range(0, tables, chunk):
        rows = _share_rows(cell, min(chunk, tables - start), random)
        estimate = estimate_shares(rows)
        hits.append(np.abs(estimate.scores(cell.share)) <= special.stdtrit(estimate.degrees, 0.975))
        if cell.ratio == 0 and start == 0:
            low, high = estimate.ends()
            widths.append((high - low)[:, :1])
    return _counted(cell, np.concatenate(hits)), float(np.concatenate(widths).mean()) if widths else float("nan")


def _share_rows(cell: Cell, tables: int, random: np.random.Generator) -> Crossed:
    counts, prompts, share = seed_counts(cell), cell.prompts, cell.share
    assert share is not None
    height = np.exp(-(special.ndtri(share) ** 2) / 2) / np.sqrt(2 * np.pi)
    variance = np.full((tables, cell.rows), cell.ratio * share * (1 - share) / height**2 / prompts)
    if cell.unequal:
        variance = variance * np.exp(random.normal(scale=SPREAD, size=variance.shape))
    threshold = (special.ndtri(share) * np.sqrt(1 + variance)).astype(np.float32)
    of_prompts = random.standard_normal((tables, cell.rows, prompts), dtype=np.float32) * np.float32(np.sqrt(0.5))
    most = int(counts.max())
    present = np.arange(most) < counts[:, None]
    wins, of_seeds = np.zeros(of_prompts.shape, dtype=np.float32), np.zeros((*variance.shape, most))
    squares = np.zeros(variance.shape)
    for one in range(most):
        effect = random.normal(size=variance.shape) * np.sqrt(variance)
        rest = random.standard_normal(of_prompts.shape, dtype=np.float32) * np.float32(np.sqrt(0.5))
        won = (of_prompts + rest + (threshold + effect.astype(np.float32))[..., None] > 0) & present[:, one, None]
        wins += won
        of_seeds[..., one] = won.mean(axis=-1)
        squares += won.sum(axis=-1)
    of_prompts = wins / counts[:, None].astype(np.float32)
    mean = of_prompts.mean(axis=-1, dtype=np.float64)
    prompt_sum = ((of_prompts - mean[..., None].astype(np.float32)) ** 2).sum(axis=-1, dtype=np.float64) * counts
    seed_sum = np.where(present, (of_seeds - mean[..., None]) ** 2, 0).sum(axis=-1) * prompts
    whole = squares - counts * prompts * mean**2
    own = np.maximum(counts - 1, 1)
    rest_sum = np.where(counts > 1, np.maximum(0, whole - prompt_sum - seed_sum), 0)
    return Crossed(
        mean,
        prompt_sum / (prompts - 1),
        np.where(counts > 1, seed_sum / own, 0),
        rest_sum / (own * (prompts - 1)),
        counts,
        prompts,
    )


def _counted(cell: Cell, hits: np.ndarray) -> float:
    return float(hits[:, 0].mean() if cell.seeds == 1 else hits.mean())
