"""``--model``: a registered name, a folder, a hub id."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import UserError
from bench.experiments.recipes import resolve
from bench.models.cards import METRICS
from bench.models.families.stable_diffusion_3 import StableDiffusion3
from bench.models.families.stable_diffusion_xl import StableDiffusionXL
from bench.models.find import find_metrics, find_model, metrics_of, path_name
from bench.models.registry import MODELS
from bench.training.algorithm import ALGORITHMS


def test_a_registered_name_comes_before_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sdxl").mkdir()
    monkeypatch.chdir(tmp_path)
    found = find_model("sdxl")
    assert (found.name, found.recipe) == ("sdxl", "sdxl")
    assert found.card.source == "stabilityai/stable-diffusion-xl-base-1.0"
    assert found.card.generation.model_dump() == {
        "scheduler": "EulerDiscreteScheduler", "steps": 50, "guidance_scale": 5.0, "negative_prompt": "",
        "height": 1024, "width": 1024, "images_per_prompt": 1, "seed": 0, "precision": "bf16",
    }  # fmt: skip


def test_a_registered_model_may_share_the_recipes_of_another() -> None:
    assert find_model("sd35").recipe == "sd3"
    assert find_model("sd35").card.family is StableDiffusion3


def test_a_folder_gets_its_familys_recipe_settings_and_metrics(pipeline_folder: Callable[..., Path]) -> None:
    found = find_model(str(pipeline_folder("sdxl")))
    assert found.card.family is StableDiffusionXL
    assert (found.card.generation.height, found.card.generation.guidance_scale) == (16, 5.0)
    assert set(found.card.metrics) == {"pickscore", "hpsv2", "imagereward", "aesthetic", "clip"}
    dpo, settings = resolve("dpo", ALGORITHMS.get("dpo"), found.recipe, {})
    assert dpo.model_dump() == {"beta": 5000.0}
    assert (settings.steps, settings.global_batch_size, settings.learning_rate, settings.warmup_steps) == (
        2000,
        2048,
        2.048e-5,
        200,
    )
    assert settings.size_conditioning == "nominal"


def test_a_folder_may_say_how_it_is_judged(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(pipeline_folder("flux"), tmp_path / "mine")
    (folder / "bench.json").write_text(json.dumps({"generation": {"steps": 4}, "metrics": {"aesthetic": "here"}}))
    card = find_model(str(folder)).card
    assert (card.generation.steps, card.generation.guidance_scale) == (4, 3.5)
    assert card.metrics == find_metrics(str(folder)) == {"aesthetic": "here"}


def test_the_checkpoints_of_a_model_that_runs_name(pipeline_folder: Callable[..., Path]) -> None:
    folder = str(pipeline_folder("flux"))
    assert find_metrics(folder) == metrics_of("owner--name") == METRICS
    assert find_metrics("tiny") == metrics_of("tiny") == MODELS.get("tiny").metrics
    assert metrics_of(find_model(folder).name) is None


def test_a_folder_that_is_no_model_has_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no model_index.json"):
        find_metrics(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "part"),
    [("{", "is not valid JSON"), ('{"generation": {"stepps": 4}}', "stepps"), ('{"metric": {}}', "metric")],
)
def test_a_wrong_card_is_refused(pipeline_folder: Callable[..., Path], tmp_path: Path, text: str, part: str) -> None:
    folder = shutil.copytree(pipeline_folder("flux"), tmp_path / "mine")
    (folder / "bench.json").write_text(text)
    with pytest.raises(UserError, match=part):
        find_model(str(folder))


def test_the_name_of_a_folder_follows_its_weights_and_not_its_place(
    pipeline_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = shutil.copytree(pipeline_folder("sdxl"), tmp_path / "a" / "net")
    moved = shutil.copytree(one, tmp_path / "b" / "net")
    other = shutil.copytree(pipeline_folder("sd15"), tmp_path / "c" / "net")
    monkeypatch.chdir(one.parent)
    names = [find_model(str(folder)).name for folder in (one, moved, other)]
    assert names[0] == names[1] == find_model("net").name == find_model("./net/").name
    assert names[0] != names[2]
    assert all(name.startswith("net-") for name in names)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/models/My SDXL (v2)", r"My-SDXL-v2-[0-9a-f]{8}"),
        ("/models/..hidden", r"hidden-[0-9a-f]{8}"),
        ("/models/模型", r"model-[0-9a-f]{8}"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "stabilityai--stable-diffusion-xl-base-1.0"),
    ],
)
def test_names_are_safe_in_paths(pipeline_folder: Callable[..., Path], source: str, name: str) -> None:
    model = StableDiffusionXL.load(str(pipeline_folder("sdxl")), device=torch.device("cpu"))
    assert re.fullmatch(name, path_name(source, model))


def test_another_autoencoder_makes_another_model(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    one = shutil.copytree(pipeline_folder("sdxl"), tmp_path / "one" / "net")
    other = shutil.copytree(one, tmp_path / "other" / "net")
    shutil.copytree(pipeline_folder("sd15") / "vae", other / "vae", dirs_exist_ok=True)
    found = [find_model(str(folder)) for folder in (one, other)]
    models = [each.card.family.load(each.card.source, device=torch.device("cpu")) for each in found]
    assert models[0].digest == models[1].digest
    assert models[0].encoders_digest != models[1].encoders_digest
    assert found[0].name != found[1].name


def test_a_hub_id_is_found_in_the_cache_without_a_network(
    pipeline_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--someone--tuned"
    shutil.copytree(pipeline_folder("sdxl"), repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = find_model("someone/tuned")
    assert (found.name, found.recipe, found.card.source) == ("someone--tuned", "sdxl", "someone/tuned")
    with pytest.raises(UserError, match=r"'someone/else' is not a local folder and cannot be downloaded from the hub"):
        find_model("someone/else")


@pytest.mark.parametrize(
    ("typed", "part"),
    [
        ("sdxxl", "unknown model 'sdxxl': did you mean 'sdxl'"),
        ("./nowhere/model", "model folder './nowhere/model' does not exist"),
        ("/nowhere", "model folder '/nowhere' does not exist"),
        ("../model", "does not exist; give a diffusers folder, a hub id or a registered name"),
    ],
)
def test_what_is_nowhere_is_refused(typed: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        find_model(typed)


def test_a_folder_that_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model_index.json; give a diffusers pipeline folder"):
        find_model(str(tmp_path))
