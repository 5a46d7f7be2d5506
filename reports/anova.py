"""Two-way analysis of variance of crossed prompts and seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np

from reports.seed_variance import Array, SeedPrior, fit_seed_prior


@dataclasses.dataclass(frozen=True, slots=True)
class Crossed:
    """The two-way analysis of variance of rows of crossed differences; fields are (..., rows).

    Attributes:
        mean: grand mean.
        prompt_square: ``M_P``, S times the variance of the prompts' means.
        seed_square: ``M_S``, P times the variance of the seeds' means; 0 with one seed.
        rest_square: ``M_R``; 0 with one seed.
        seeds: (rows,), S.
        prompts: P.
    """

    mean: Array
    prompt_square: Array
    seed_square: Array
    rest_square: Array
    seeds: Array
    prompts: int

    @classmethod
    def of(cls, rows: Sequence[Array]) -> Self:
        """The analysis of each row of a table.

        Args:
            rows: (seeds, prompts) or (seeds, prompts, images) each, with the same prompts; images of one prompt are averaged.

        Raises:
            ValueError: there are fewer than two prompts, or a shape is wrong.
        """
        tables = [_by_seed_and_prompt(row) for row in rows]
        mean, of_prompts, of_seeds, rest = np.array([_squares(table) for table in tables], dtype=np.float64).T
        seeds = np.array([len(table) for table in tables], dtype=np.float64)
        return cls(mean, of_prompts, of_seeds, rest, seeds, tables[0].shape[1])

    def scaled(self, factor: Array) -> Self:
        """The same with all squares multiplied."""
        return dataclasses.replace(
            self,
            prompt_square=self.prompt_square * factor,
            seed_square=self.seed_square * factor,
            rest_square=self.rest_square * factor,
        )

    def prior(self, shared: float = 0.0) -> SeedPrior:
        """What these rows say about how seeds differ; for ``shared`` see `fit_seed_prior`."""
        return fit_seed_prior(self.seed_square, self.rest_square, self.seeds - 1, shared)


def _squares(table: Array) -> tuple[float, float, float, float]:
    """Mean, ``M_P``, ``M_S`` and ``M_R`` of a table (seeds, prompts)."""
    seeds, prompts = table.shape
    of_prompts, of_seeds, mean = table.mean(axis=0), table.mean(axis=1), float(table.mean())
    prompt_square = seeds * float(((of_prompts - mean) ** 2).sum()) / (prompts - 1)
    if seeds == 1:
        return mean, prompt_square, 0.0, 0.0
    seed_square = prompts * float(((of_seeds - mean) ** 2).sum()) / (seeds - 1)
    rest = table - of_prompts - of_seeds[:, None] + mean
    return mean, prompt_square, seed_square, float((rest**2).sum()) / ((seeds - 1) * (prompts - 1))


def _by_seed_and_prompt(differences: Array) -> Array:
    if differences.ndim not in (2, 3) or differences.shape[0] < 1 or differences.shape[1] < 2:
        raise ValueError(
            f"differences of shape {differences.shape}: (seeds, prompts) or (seeds, prompts, images) with at least two prompts"
        )
    return differences.mean(axis=2) if differences.ndim == 3 else differences
