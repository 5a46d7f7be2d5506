"""What `bench.run` and `bench.evaluate` refuse in Python, where no option parser has looked at the arguments."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import bench
from bench.experiments.interface import as_overrides
from bench.experiments.recipes import resolve, run_name
from bench.tiny import ASSETS
from bench.training.algorithm import ALGORITHMS, Recipe


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"steps": 6}, "there is no argument 'steps'"),
        ({"metric": ["gold"]}, "there is no argument 'metric': did you mean 'metrics'?"),
        ({"limit": 0}, "limit=0 is too small"),
        ({"prompts": ""}, "prompts is empty; give a value, or leave it out"),
        ({"data": ""}, "data is empty"),
        ({"init": ""}, "init is empty"),
        ({"limit": -1}, "limit=-1 is too small"),
        ({"name": "../../x"}, "the name '../../x' cannot be used"),
        ({"seeds": []}, "there is nothing to run: name at least one seed"),
        ({"settings": {"beta": None}}, "beta=None is not a value"),
        (
            {"settings": {"batch": 8, "global_batch_size": 16}},
            "batch and global_batch_size are the old and the new name",
        ),
    ],
)
def test_run(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(bench.UserError) as refused:
        bench.run("dpo", "tiny", runs=tmp_path, **arguments)
    assert sentence in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_single_prompt_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a bee\na bee\n")
    with pytest.raises(bench.UserError, match="only 1 different prompt"):
        bench.run(
            "dpo",
            "tiny",
            prompts=str(tmp_path / "p.txt"),
            metrics=["aesthetic"],
            limit=2,
            settings={"steps": 1},
            runs=tmp_path / "runs",
        )
    assert not (tmp_path / "runs").exists()


def test_no_algorithm(tmp_path: Path) -> None:
    with pytest.raises(bench.UserError, match="name at least one algorithm"):
        bench.run([], "tiny", runs=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"weights": "w", "name": "../../x"}, "the name '../../x' cannot be used"),
        ({"negative": "tiny/base", "negative_scales": (2.0, 1.0)}, "alpha=2 is not allowed; use a number from 0 to 1"),
    ],
)
def test_evaluate(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(bench.UserError) as refused:
        bench.evaluate("tiny", runs=tmp_path, **arguments)
    assert sentence in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_what_a_model_of_ones_own_lacks_is_said_at_once(tmp_path: Path) -> None:
    shutil.copytree(ASSETS / "model", tmp_path / "mine")
    with pytest.raises(bench.UserError) as refused:
        bench.run("dpo", str(tmp_path / "mine"), runs=tmp_path / "runs")
    assert "--prompts" in str(refused.value)
    assert "--data" in str(refused.value)


@pytest.mark.parametrize("wrapper", ["npo", "sdpo"])
def test_a_reward_inside_a_wrapper_must_exist(tmp_path: Path, wrapper: str) -> None:
    settings = {"objective": "smpo", "objective_fields": {"reward": "pickscor"}}
    with pytest.raises(bench.UserError, match="did you mean 'pickscore'"):
        bench.run(wrapper, "tiny", runs=tmp_path, settings=settings)
    assert not list(tmp_path.glob("tiny*"))


@pytest.mark.parametrize(
    ("number", "typed"),
    [(1e-5, "1e-5"), (1e-5, "0.00001"), (500, "500"), (500.0, "500"), (0.25, ".25"), (True, "true")],
)
def test_python_and_the_command_line_name_a_run_alike(number: float, typed: str) -> None:
    recipe = Recipe(source="a test")
    assert run_name(as_overrides({"beta": number}), recipe) == run_name({"beta": typed}, recipe)


@pytest.mark.parametrize(
    ("changed", "ending"),
    [
        ({"beta": "500,1000"}, "give a number; an experiment file states a grid, as a list: beta = [500, 1000]"),
        ({"budget.unit": "pairs", "budget.amount": "9,10"}, "as a list: beta = [500, 1000]"),
        ({"beta": "many"}, "give a number"),
        ({"steps": "5", "objective": "a,b"}, "has no field"),
    ],
)
def test_several_values_of_a_setting_are_a_grid(changed: dict[str, str], ending: str) -> None:
    with pytest.raises(bench.UserError) as refused:
        resolve("dpo", ALGORITHMS.get("dpo"), "tiny", changed)
    assert ending in str(refused.value)
    assert ("grid" in str(refused.value)) == ("grid" in ending or "list" in ending)


def test_a_metric_that_cannot_be_loaded_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a bee\na cat\n")
    # a folder's metrics have no checkpoints of their own, and tests have no hub
    shutil.copytree(ASSETS / "model", tmp_path / "mine")
    pq.write_table(pq.read_table(ASSETS / "preferences.parquet").slice(0, 4), tmp_path / "pairs.parquet")
    given = {"prompts": str(tmp_path / "p.txt"), "metrics": ["pickscore"], "runs": tmp_path / "runs"}
    for refused in (
        lambda: bench.evaluate(str(tmp_path / "mine"), **given),
        lambda: bench.run("sft", str(tmp_path / "mine"), data=str(tmp_path / "pairs.parquet"), **given),
    ):
        with pytest.raises(bench.UserError, match="cannot be downloaded"):
            refused()
        assert [path.name for path in (tmp_path / "runs").glob("[!.]*")] == []


def test_old_names_are_the_settings_of_today() -> None:
    _, settings = resolve("dpo", ALGORITHMS.get("dpo"), "tiny", {"batch": "8", "clip_norm": "0.5"})
    assert (settings.global_batch_size, settings.max_grad_norm) == (8, 0.5)
