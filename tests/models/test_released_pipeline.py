"""``--weights PIPELINE``: its denoiser is judged with the base's encoders, so the pipeline must have the same ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub import local_hub
from safetensors.torch import load_file, save_file

from bench import UserError
from bench.models.checkpoints.released import check_encoders, find_released
from bench.models.family import ModelFamily
from bench.models.find import find_model

Change = Callable[[Path], None]


def load(folder: Path) -> ModelFamily:
    return find_model(str(folder)).card.family.load(str(folder), device=torch.device("cpu"))


def scale(pipeline: Path) -> None:
    path = pipeline / "vae" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "scaling_factor": config["scaling_factor"] * 2}))


def converted(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def write(pipeline: Path) -> None:
        (file,) = (pipeline / part).glob("*.safetensors")
        tensors = {name: change(value) for name, value in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})

    return write


def without(*parts: str) -> Change:
    def remove(pipeline: Path) -> None:
        for part in parts:
            shutil.rmtree(pipeline / part)

    return remove


def scaled_alone(pipeline: Path) -> None:
    scale(pipeline)
    without("text_encoder", "tokenizer")(pipeline)


def check(pipeline_folder: Callable[..., Path], tmp_path: Path, change: Change) -> None:
    base = pipeline_folder("sd15")
    shutil.copytree(base, tmp_path / "tuned")
    change(tmp_path / "tuned")
    typed = str(tmp_path / "tuned")
    check_encoders(find_released(typed), typed, load(base), "small")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("vae", scale),
        ("vae", converted("vae", lambda value: value * 1.1)),
        ("text_encoder", converted("text_encoder", lambda value: value * 1.1)),
        ("vae", scaled_alone),
    ],
    ids=["scaling_factor", "autoencoder", "text encoder", "a pipeline without text encoder"],
)
def test_other_encoders_are_refused_by_name(
    pipeline_folder: Callable[..., Path], tmp_path: Path, part: str, change: Change
) -> None:
    with pytest.raises(UserError, match=f"tuned is a pipeline with another {part} than 'small'"):
        check(pipeline_folder, tmp_path, change)


@pytest.mark.parametrize(
    "change",
    [
        lambda pipeline: (pipeline / "README.md").write_text("tuned"),
        converted("unet", lambda value: value * 1.1),
        converted("text_encoder", lambda value: value.half() if value.is_floating_point() else value),
        without("vae", "text_encoder", "tokenizer"),
    ],
    ids=["README", "denoiser", "half precision", "denoiser alone"],
)
def test_what_the_base_has_too_is_accepted(
    pipeline_folder: Callable[..., Path], tmp_path: Path, change: Change
) -> None:
    check(pipeline_folder, tmp_path, change)


def test_a_part_that_is_listed_and_not_there_is_named(
    pipeline_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(pipeline_folder, tmp_path, without("vae"))
    assert "tuned lists vae but holds no such folder: images are made with 'small''s own" in capsys.readouterr().err


HUB_SCRIPT = """
import sys, torch
from bench import UserError
from bench.models.checkpoints.released import check_encoders, find_released
from bench.models.find import find_model

base = find_model(sys.argv[1]).card.family.load(sys.argv[1], device=torch.device("cpu"))
for typed in ("someone/same", "someone/scaled", "someone/text"):
    place = find_released(typed)
    try:
        check_encoders(place, typed, base, "small")
        print("accepted", *sorted(part.name for part in place.parent.iterdir() if part.is_dir()))
    except UserError as error:
        print(error)
"""


@pytest.mark.slow
def test_the_parts_of_a_pipeline_on_the_hub_are_downloaded_and_compared(
    pipeline_folder: Callable[..., Path], tmp_path: Path
) -> None:
    base, someone = pipeline_folder("sd15"), tmp_path / "hub" / "models" / "someone"
    changes: dict[str, Change] = {
        "same": converted("unet", lambda value: value * 1.1),
        "scaled": scale,
        "text": converted("text_encoder", lambda value: value * 1.1),
    }
    for name, change in changes.items():
        change(shutil.copytree(base, someone / name))
    with local_hub(tmp_path / "hub", tmp_path / "cache") as online:
        for variables in (online, {**online, "HF_HUB_OFFLINE": "1"}):
            words = [sys.executable, "-c", HUB_SCRIPT, str(base)]
            done = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            same, scaled, text = done.stdout.splitlines()
            assert same == "accepted scheduler text_encoder tokenizer unet vae"
            assert "someone/scaled is a pipeline with another vae than 'small'" in scaled
            assert "someone/text is a pipeline with another text_encoder than 'small'" in text
