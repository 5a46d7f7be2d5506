"""Folders that older versions wrote are read and reported, and a finished run in them is recognised by the command that made it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch

from bench import ALGORITHMS
from bench.data.reading import read_preferences
from bench.models.families.stable_diffusion import StableDiffusion
from bench.records.runs import RunFolder
from bench.tiny import ASSETS, TINY
from reports.footnotes import footnotes
from reports.report import make_report

FOLDERS = Path(__file__).parent / "folders"
LABEL = "set-c8c15067"
"""What both versions called the runs."""
OWN = {
    "dpo": {"beta": 2000.0},
    "npo": {"objective": "dpo", "objective_fields": {}},
    "inpo": {"beta": 2000.0, "inversion_steps": 5, "inversion": "grid", "eta": 0.1},
}
"""Hyper-parameters by algorithm, by today's names."""


@pytest.fixture(params=[1, 2], ids=["schema-1", "schema-2"])
def schema(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


OLD_WORLD = {
    "weights": "d9389e4e706c7c13", "data": "553957f8bdd40cd1", "labels": "5abf8ecda0f5cb62", "pairs": '"pairs": 2000',
}  # fmt: skip
"""What both versions recorded of the tiny model and its data."""


@pytest.fixture(scope="module")
def world() -> dict[str, str]:
    """The same of today's tiny model and data."""
    assert TINY.data
    model, pairs = StableDiffusion.load(TINY.source, device=torch.device("cpu")), read_preferences(TINY.data)
    return {
        "weights": model.digest, "data": pairs.digest, "labels": pairs.labels_digest, "pairs": f'"pairs": {len(pairs)}',
    }  # fmt: skip


@pytest.fixture
def of_todays_world(folder: Path, world: dict[str, str]) -> Path:
    """The folder as the older version would have left it, had the tiny world and its recipes been today's."""
    for path in folder.rglob("config.json"):
        written = path.read_text()
        for name, recorded in OLD_WORLD.items():
            written = written.replace(recorded, world[name])
        algorithm = path.parent.parent.parent.name
        if algorithm in OWN:
            recipe = ALGORITHMS.get(algorithm).recipes["tiny"]
            fields = recipe.algorithm.get("objective_fields", recipe.algorithm)
            written = written.replace('"beta": 2000.0', f'"beta": {fields["beta"]}')
            written = written.replace('"objective_fields": {}', f'"objective_fields": {json.dumps(fields)}')
            written = written.replace('"learning_rate": 1e-05', f'"learning_rate": {recipe.training["learning_rate"]}')
        path.write_text(written)
    return folder


ONCE = pytest.mark.parametrize(
    "schema", [pytest.param(1, id="schema-1"), pytest.param(2, id="schema-2", marks=pytest.mark.slow)], indirect=True
)
"""For tests that start a training command: both versions' runs are refused by the same lines."""


@pytest.fixture
def folder(schema: int, tmp_path: Path) -> Path:
    """A folder as the older version left it, with prompts; of the weights only that there are some."""
    shutil.copytree(FOLDERS / f"schema-{schema}", tmp_path / "old")
    for run in tmp_path.glob("old/runs/tiny/*/*/seed-0"):
        shutil.copytree(ASSETS / "model" / "unet", run / "weights")
    return tmp_path / "old"


def bench(folder: Path, *words: str) -> Any:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return forked.run(words, folder, environment)


def contents(folder: Path) -> dict[str, bytes]:
    """All records under a folder; locks are none."""
    files = [path for path in folder.glob("tiny/**/*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if "weights" not in path.parts}


@pytest.mark.parametrize("algorithm", OWN)
def test_configurations_are_read_by_todays_names(schema: int, algorithm: str) -> None:
    run = RunFolder(FOLDERS / f"schema-{schema}" / "runs" / "tiny" / algorithm / LABEL / "seed-0")
    assert json.loads((run.folder / "config.json").read_text())["schema"] == schema
    config = run.config()
    named = (config.algorithm, config.name, config.seed, config.base_weights)
    assert named == (algorithm, LABEL, 0, OLD_WORLD["weights"])
    assert config.resolved.algorithm == OWN[algorithm]
    assert config.resolved.training is not None
    assert config.resolved.training.to_json() == {
        "steps": 2, "budget": None, "global_batch_size": 4, "optimizer": "adamw", "learning_rate": 1e-5,
        "lr_schedule": "constant", "warmup_steps": 1, "weight_decay": 0.01, "max_grad_norm": 1.0, "caption_dropout": 0.1,
        "trainable": "full", "lora_rank": 16, "size_conditioning": "true", "aspect_ratios": "square", "precision": "fp32",
        "latents": "mean", "horizontal_flip": "none", "lora_init": "uniform", "labels": "as given", "stop_when": None, "rounds": None,
        "ema_decay": 0.0, "ema_every": 1,
    }  # fmt: skip
    assert (config.labels, config.placebo, config.placebo_of) == ("as given", None, None)
    assert config.resolved.data is not None
    assert (config.resolved.data.digest, config.resolved.data.labels) == (OLD_WORLD["data"], OLD_WORLD["labels"])
    assert (config.resolved.rewards, config.resolved.negative is None) == ({}, algorithm != "npo")
    # schema 1 did not write down what was changed
    assert config.changed == ({} if schema == 1 else {"steps": "2", "global_batch_size": "4", "warmup_steps": "1"})


def test_the_report_has_their_scores_costs_and_settings(schema: int) -> None:
    runs = FOLDERS / f"schema-{schema}" / "runs"
    report = make_report(runs)
    # schema 1 did not write down what was changed, so its rows are named by the hash of it
    what = LABEL if schema == 1 else "steps=2, global_batch_size=4, warmup_steps=1"
    assert [row.label for row in report.rows] == [
        "Tiny", f"Diffusion-DPO ({what})", f"DDIM-InPO ({what})", f"Diffusion-NPO ({what})",
    ]  # fmt: skip
    assert any(
        line.startswith(f"Diffusion-NPO ({what}) trains weights for the unconditional branch")
        for line in footnotes(report)
    )
    assert any(
        line.startswith("An older version made the images and did not record its code") for line in footnotes(report)
    )
    assert any("an older version trained them and did not record its code" in line for line in footnotes(report))
    assert (report.model, report.prompts, report.protocol.generation.steps) == ("tiny", 3, 20)
    assert [(metric.name, metric.info.title) for metric in report.metrics] == [
        ("gold", "gold"),
        ("aesthetic", "Aesthetic"),
    ]
    dpo, npo = report.rows[1], report.rows[3]
    (lines,) = (path.read_text().splitlines() for path in runs.glob("tiny/dpo/*/seed-0/evaluations/*/scores.jsonl"))
    gold = [record["score"] for record in map(json.loads, lines) if record["metric"] == "gold"]
    assert len(gold) == 3
    assert dpo.scores["gold"].mean == pytest.approx(np.mean(gold), rel=1e-12)
    assert dpo.cost is not None
    assert (dpo.cost.pairs, dpo.cost.policy_forwards, dpo.cost.policy_backwards) == (8, 16, 16)
    assert len(dpo.curves["loss"].mean) == 2
    assert dpo.settings is not None
    # schema 1 did not count them
    seen = None if schema == 1 else 2
    assert (dpo.settings.data.source, dpo.settings.prompts_in_training) == ("preferences.parquet", seen)
    assert [variant.alpha for variant in npo.variants] == [1.0]


def test_the_command_line_reports_them(folder: Path) -> None:
    done = bench(folder, "report", "--runs", "runs", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert [line.split(",")[1:3] for line in done.stdout.splitlines()[1::2]] == [
        ["base", ""], ["dpo", LABEL], ["inpo", LABEL], ["npo", LABEL],
    ]  # fmt: skip


@ONCE
def test_a_run_from_other_weights_is_left_alone(folder: Path) -> None:
    before = contents(folder / "runs")
    words = ["--set", "steps=2", "--set", "batch=4", "--set", "warmup=1", "--prompts", "prompts.txt"]
    done = bench(folder, "run", "--algo", ",".join(OWN), "--model", "tiny", *words, "--metrics", "aesthetic,gold")
    assert done.returncode == 2
    assert "holds a run that differs in" in done.stderr
    assert "choose another --name" in done.stderr
    after = contents(folder / "runs")
    assert {name: after[name] for name in before} == before


@ONCE
def test_a_run_that_would_train_otherwise_today_is_left_alone(of_todays_world: Path) -> None:
    """Up to schema 3 latents were the posterior's mean, so the command that made these runs would make others."""
    before = contents(of_todays_world / "runs")
    words = ["--set", "steps=2", "--set", "batch=4", "--set", "warmup=1", "--prompts", "prompts.txt"]
    done = bench(
        of_todays_world, "run", "--algo", ",".join(OWN), "--model", "tiny", *words, "--metrics", "aesthetic,gold"
    )
    assert done.returncode == 2
    assert "holds a run that differs in training.latents ('mean' and 'sample'); choose another --name" in done.stderr
    after = contents(of_todays_world / "runs")
    assert {name: after[name] for name in before} == before


@ONCE
def test_finished_runs_are_recognised_by_the_command_that_made_them_and_a_word_on_their_code(
    of_todays_world: Path,
) -> None:
    before = contents(of_todays_world / "runs")
    words = ["--set", "steps=2", "--set", "batch=4", "--set", "warmup=1", "--prompts", "prompts.txt"]
    words += ["--set", "latents=mean", "--name", LABEL]  # as versions up to schema 3 trained
    command = [
        "run",
        "--algo",
        ",".join(OWN),
        "--model",
        "tiny",
        *words,
        "--metrics",
        "aesthetic",
        "--sampling-steps",
        "1",
    ]
    refused = bench(of_todays_world, *command)
    assert refused.returncode == 2
    assert f"{LABEL}/seed-0 was made by a version that did not record its code and the model's files" in refused.stderr
    assert contents(of_todays_world / "runs") == before
    done = bench(of_todays_world, *command, "--same-code")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("done:")] == [
        f"done: runs/tiny/{algorithm}/{LABEL}/seed-0" for algorithm in OWN
    ]
    after = contents(of_todays_world / "runs")
    assert {name: after[name] for name in before} == before
    assert all("/evaluations/" in name for name in after.keys() - before.keys())  # under today's protocol
