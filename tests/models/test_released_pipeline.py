"""``--weights PIPELINE``: its denoiser is judged with the base's encoders, so the pipeline must have the same ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
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


def only_denoiser(pipeline: Path) -> None:
    scale(pipeline)
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(pipeline / part)


def check(pipeline_folder: Callable[..., Path], tmp_path: Path, change: Change) -> None:
    base = pipeline_folder("sd15")
    shutil.copytree(base, tmp_path / "tuned")
    change(tmp_path / "tuned")
    check_encoders(find_released(str(tmp_path / "tuned")), "tuned", load(base), "small")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("vae", scale),
        ("vae", converted("vae", lambda value: value * 1.1)),
        ("text_encoder", converted("text_encoder", lambda value: value * 1.1)),
    ],
    ids=["scaling_factor", "autoencoder", "text encoder"],
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
        only_denoiser,
    ],
    ids=["README", "denoiser", "half precision", "denoiser alone"],
)
def test_what_the_base_has_too_is_accepted(
    pipeline_folder: Callable[..., Path], tmp_path: Path, change: Change
) -> None:
    check(pipeline_folder, tmp_path, change)
