"""The table of where every setting of every published recipe is from."""

from __future__ import annotations

import importlib
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from bench import ALGORITHMS, Algorithm, Recipe, TrainingSettings
from bench.training.algorithm import UNTRIED

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "algorithm_tables.py"))
LOSS, ROWS = SCRIPT["LOSS"], SCRIPT["read_sources"]()
OWN = [name for name in ALGORITHMS if ALGORITHMS.point(name).module.startswith("algorithms.")]
PUBLISHED = [
    (name, key)
    for name in OWN
    for key, recipe in ALGORITHMS.get(name).recipes.items()
    if key != "tiny" and recipe.name not in UNTRIED
]
"""Algorithms and keys of their published recipes."""
IDENTIFIER = re.compile(r"arXiv \d{4}\.\d{5}|OpenReview \w{8,}")


def settings(algorithm: type[Algorithm], key: str, recipe: Recipe) -> dict[str, Any]:
    """What a run with a recipe unchanged resolves to, and how it is executed where the recipe says so."""
    training = TrainingSettings(**recipe.training)
    unstated = TrainingSettings.execution_fields() - recipe.training.keys()
    shared = training.model_dump(mode="json", exclude={"budget", "labels", "rounds", "stop_when", *unstated})
    if training.trainable == "full":
        del shared["lora_rank"], shared["lora_init"]
    if not training.ema_decay:
        del shared["ema_decay"], shared["ema_every"]
    if key.partition("/")[0] != "sdxl":
        del shared["size_conditioning"]
    return {**algorithm(**recipe.algorithm).model_dump(mode="json"), **shared}


@pytest.mark.parametrize(("name", "key"), PUBLISHED)
def test_every_field_of_a_published_recipe_has_a_row_with_its_value(name: str, key: str) -> None:
    algorithm = ALGORITHMS.get(name)
    stated = {row.field: json.loads(row.value) for row in ROWS if (row.algorithm, row.recipe) == (name, key)}
    assert stated == settings(algorithm, key, algorithm.recipes[key])


def test_no_row_is_left_over_or_twice() -> None:
    losses = {(name, "") for name, _ in PUBLISHED}
    assert {(row.algorithm, row.recipe) for row in ROWS} == losses | set(PUBLISHED)
    assert len({(row.algorithm, row.recipe, row.field) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("name", sorted({name for name, _ in PUBLISHED}))
def test_the_loss_is_the_formula_that_users_are_shown(name: str) -> None:
    (row,) = (row for row in ROWS if (row.algorithm, row.recipe) == (name, ""))
    assert (row.field, json.loads(row.value)) == (LOSS, ALGORITHMS.get(name).info.formula)


@pytest.mark.parametrize("name", sorted({name for name, _ in PUBLISHED}))
def test_an_algorithm_cites_the_paper_repositories_and_commits_of_its_rows(name: str) -> None:
    kind = ALGORITHMS.get(name)
    docstring = importlib.import_module(kind.__module__).__doc__ or ""
    rows = [row for row in ROWS if row.algorithm == name]
    (paper,) = {row.paper for row in rows}
    assert paper in kind.info.paper
    cited = re.findall(r"\b[0-9a-f]{7,10}\b", docstring)
    for repository, commit in {(row.repository, row.commit) for row in rows if row.repository}:
        assert repository in docstring
        assert [short for short in cited if commit.startswith(short)]
    equations = {row.equation for row in rows if row.equation}
    assert all(equation in docstring for equation in equations)


@pytest.mark.parametrize("name", OWN)
def test_an_algorithm_has_the_same_identifiers_for_users_and_for_readers_of_its_code(name: str) -> None:
    kind = ALGORITHMS.get(name)
    docstring = " ".join((importlib.import_module(kind.__module__).__doc__ or "").split())
    assert set(IDENTIFIER.findall(kind.info.paper)) == set(IDENTIFIER.findall(docstring))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.algorithm}-{row.recipe}-{row.field}")
def test_a_row_says_where_its_value_was_read(row: Any) -> None:
    if row.opened == "no":
        assert (row.repository, row.commit, row.file, row.line, row.text, row.relation) == ("",) * 6
        assert row.note
        return
    assert row.opened == "yes"
    assert re.fullmatch("[0-9a-f]{40}", row.commit)
    assert int(row.line) > 0
    assert row.text == " ".join(row.text.split()) != ""
    assert row.relation in ("as published", "converted", "departs")
    assert row.relation == "as published" or row.note
    # A number that is as published stands in the text that it was read from.
    value, numbers = json.loads(row.value), re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", row.text)
    if row.relation == "as published" and type(value) in (int, float) and numbers and row.field != LOSS:
        assert abs(value) in [float(number) for number in numbers]


def test_the_page_has_every_row() -> None:
    page = SCRIPT["sources_page"]()
    for row in ROWS:
        assert f"| `{row.field}` |" in page
        if row.repository:
            assert f"[{row.file}:{row.line}]({row.link})" in page
    assert f"{len(ROWS)} settings" in page
