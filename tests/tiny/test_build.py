from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from typer.testing import CliRunner

from bench.tiny import ASSETS
from bench.tiny.build import main, stages, wanted
from bench.tiny.building.parts import save_half
from bench.tiny.flip import flip_votes
from bench.tiny.flip import main as flip
from bench.tiny.quality import main as quality


def test_saving_in_half_precision_leaves_the_pipeline_and_no_path_of_this_machine(tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        ASSETS / "model", dtype=torch.float32, safety_checker=None, local_files_only=True
    )
    save_half(pipeline, tmp_path)
    assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}
    saved = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float16}
    for config in tmp_path.rglob("*.json"):
        json.loads(config.read_text())
        assert str(ASSETS) not in config.read_text()


def test_flipped_votes_are_a_stated_share_and_the_same_every_time(tmp_path: Path) -> None:
    flip_votes(ASSETS / "preferences.parquet", tmp_path / "one.parquet", share=0.2, seed=0)
    flip_votes(ASSETS / "preferences.parquet", tmp_path / "two.parquet", share=0.2, seed=0)
    before = pq.read_table(ASSETS / "preferences.parquet")
    one, two = (pq.read_table(tmp_path / name) for name in ("one.parquet", "two.parquet"))
    assert one.equals(two)
    assert one.drop_columns(["label_0"]).equals(before.drop_columns(["label_0"]))
    changed = np.asarray(one["label_0"]) != np.asarray(before["label_0"])
    assert changed.sum() == round(0.2 * len(before))


def test_more_flips_contain_the_fewer(tmp_path: Path) -> None:
    def flipped(share: float) -> set[int]:
        flip_votes(ASSETS / "preferences.parquet", tmp_path / "x.parquet", share=share, seed=3)
        before, after = (
            pq.read_table(path)["label_0"] for path in (ASSETS / "preferences.parquet", tmp_path / "x.parquet")
        )
        return set(np.flatnonzero(np.asarray(before) != np.asarray(after)).tolist())

    assert flipped(0.1) < flipped(0.4)


def test_a_stage_is_made_with_what_it_needs_and_nothing_else() -> None:
    assert [stage.name for stage in wanted(stages(), ["base"])] == ["autoencoder", "pretrained", "base"]
    assert [stage.name for stage in wanted(stages(), ["aesthetic"])] == [
        "autoencoder", "pretrained", "base", "scenes", "redrawn", "pictures", "checker", "clip", "aesthetic",
    ]  # fmt: skip
    every = stages()
    assert wanted(every, []) == every


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        (main, ["--work", "work", "--stage", "basement"], "there is no stage 'basement'; there are autoencoder, pretrained,"),
        (flip, ["--share", "0.1", "--output", "out", "--source", "words.txt"], "words.txt cannot be read as Parquet"),
        (flip, ["--share", "0.1", "--output", "out", "--source", "other.parquet"], "other.parquet has no column 'label_0'"),
        (flip, ["--share", "0.1", "--output", "out", "--source", "text.parquet"], "text.parquet has a vote label_0 of '1'; give pairs whose votes are 0 or 1"),
        (quality, ["--assets", "."], "has no prompts.txt, no preferences.parquet, no off-policy.parquet, no quality.json, no checker, no model,"),
        (flip, ["--share", "0.1", "--output", "out", "--source", "missing"], "'missing' does not exist"),
        (quality, ["--weights", "missing[/old]", "--work", "work"], "missing[/old] holds no safetensors weights"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("words")
    pq.write_table(pa.table({"caption": ["a bee"]}), "other.parquet")
    pq.write_table(pa.table({"label_0": ["1"]}), "text.parquet")
    given = sorted(path.name for path in tmp_path.iterdir())
    app = typer.Typer()
    app.command()(command)
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2
    assert sentence in " ".join(re.sub("[│╭─╮╰╯]", " ", ended.stderr).split())
    assert sorted(path.name for path in tmp_path.iterdir()) == given


def test_what_decides_a_stage_can_be_written_as_json_and_the_number_of_steps_is_not_part_of_it() -> None:
    for stage in stages():
        json.dumps(dict(stage.recipe))
        assert "steps=" not in str(stage.recipe).replace("steps=0", "")


@pytest.mark.slow
def test_a_build_killed_in_all_of_its_work_goes_on_to_the_assets_of_one_that_never_was(tmp_path: Path) -> None:
    """All stages of the real build, small, about ten minutes: killed in every stage, halfway through its work and at its end."""

    def build(*words: str) -> subprocess.CompletedProcess[str]:
        script = Path(__file__).parent / "small_build.py"
        return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)

    straight = build(str(tmp_path / "straight"))
    assert straight.returncode == 0, straight.stderr
    begun = [line.partition(":")[0] for line in straight.stdout.splitlines() if line.endswith("begins")]
    assert begun == [stage.name for stage in stages()]
    for _ in range(3 * len(begun)):
        ended = build(str(tmp_path / "killed"), str(tmp_path / "kills"))
        if ended.returncode != -signal.SIGKILL:
            break
    assert ended.returncode == 0, ended.stderr
    killed = [mark.name for mark in (tmp_path / "kills").iterdir()]
    assert len(killed) > len(begun)
    for name in begun:
        assert f"{name},-its-end" in killed
    straight_assets, killed_assets = (tmp_path / run / "assets" for run in ("straight", "killed"))
    assert contents(straight_assets) == contents(killed_assets)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
