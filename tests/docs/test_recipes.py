"""The recipes of the tiny model are the best trials of the page that says how they were chosen."""

from __future__ import annotations

import re

import pytest
from pages import DOCS

from bench import ALGORITHMS

ROW = re.compile(r"^\| `([\w-]+)` \| ([^|]+) \| (\*{0,2})([+-][\d.]+) ± [\d.]+\*{0,2} \|$", re.MULTILINE)
TRIALS = 4


def trials() -> dict[str, list[tuple[dict[str, float], bool, float]]]:
    """By algorithm: the settings of each trial, whether it is marked as the best, and its gain."""
    found: dict[str, list[tuple[dict[str, float], bool, float]]] = {}
    for name, settings, mark, gain in ROW.findall((DOCS / "tiny-recipes.md").read_text(encoding="utf-8")):
        fields = {field: float(value) for field, value in (each.split("=") for each in settings.split(", "))}
        found.setdefault(name, []).append((fields, bool(mark), float(gain)))
    return found


@pytest.mark.parametrize("name", trials())
def test_a_recipe_is_the_best_trial(name: str) -> None:
    tried = trials()[name]
    assert len(tried) >= TRIALS
    (best,) = [fields for fields, marked, _ in tried if marked]
    assert best == max(tried, key=lambda trial: trial[2])[0]
    recipe = ALGORITHMS.get(name).recipes["tiny"]
    shipped = {**recipe.training, **recipe.algorithm}
    assert {field: shipped[field] for field in best} == best
    assert "tiny-recipes" in recipe.source
