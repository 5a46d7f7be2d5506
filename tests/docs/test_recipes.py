"""The recipes of the tiny model are the best trials of the page that says how they were chosen."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from archived import unpacked
from pages import DOCS, ROOT

from bench import ALGORITHMS
from bench.experiments.study_file import StudyFile

ROW = re.compile(r"^\| `([\w-]+)` \| ([^|]+) \| (\*{0,2})([+-][\d.]+) ± [\d.]+\*{0,2} \|$", re.MULTILINE)
TRIALS = 4
NOT_KEPT = {"dpo", "inpo", "ipo", "kto", "sft", "smpo"}
"""Algorithms whose trials are not in the archive, as the page says."""


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
    inner = {
        f"objective_fields.{field}": value for field, value in recipe.algorithm.get("objective_fields", {}).items()
    }
    shipped = {**recipe.training, **recipe.algorithm, **inner}
    assert {field: shipped[field] for field in best} == best
    assert "tiny-recipes" in recipe.source


def test_the_trials_of_the_page_are_those_of_the_archive(tmp_path: Path) -> None:
    script = runpy.run_path(str(DOCS / "sweep.py"))
    tried = script["trials"](unpacked(DOCS / "tiny-sweep.tar.xz", tmp_path))
    page = (DOCS / "tiny-recipes.md").read_text(encoding="utf-8").splitlines()
    start = page.index(script["HEAD"][0])
    shown = [line for line in page[start + 2 :] if not any(f"`{name}`" in line for name in NOT_KEPT)]
    made = script["table"](tried)
    assert shown[: len(made)] == made
    assert tried.keys().isdisjoint(NOT_KEPT)
    assert trials().keys() == tried.keys() | NOT_KEPT


def test_the_trials_are_those_of_the_example() -> None:
    """Settings of each algorithm, whichever order they are named in."""
    study = StudyFile(ROOT / "examples" / "tiny-sweep.toml").study({})
    planned: dict[str, list[dict[str, float]]] = {}
    for each in study.configurations():
        planned.setdefault(each.algorithm, []).append({field: float(value) for field, value in each.overrides.items()})
    for name, tried in trials().items():
        assert sorted(map(sorted, map(dict.items, planned[name]))) == sorted(
            sorted(fields.items()) for fields, _, _ in tried
        )
