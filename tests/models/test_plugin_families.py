"""A family of a plug-in whose pipeline and network are classes of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from diffusers import UNet2DConditionModel

from bench.core.errors import UserError
from bench.models.families.stable_diffusion import StableDiffusion


class OwnNetwork(UNet2DConditionModel):
    """A network that no library has."""


class Own(StableDiffusion):
    """Stable Diffusion with another network."""

    pipeline_class = "OwnPipeline"
    classes: ClassVar[Mapping[str, type]] = {"unet": OwnNetwork}


@pytest.fixture
def folder(pipeline_folder: Callable[..., Path], tmp_path: Path) -> Path:
    path = Path(shutil.copytree(pipeline_folder("sd15"), tmp_path / "model"))
    index = json.loads((path / "model_index.json").read_text())
    index |= {"_class_name": "OwnPipeline", "unet": ["own_package", "OwnNetwork"]}
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def test_an_installed_family_loads_its_own_classes(folder: Path) -> None:
    assert type(Own.load(str(folder), device=torch.device("cpu")).network) is OwnNetwork
    assert type(Own.unweighted(str(folder), device=torch.device("meta")).network) is OwnNetwork


def test_a_folder_names_no_other_class(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"vae": ["own_package", "OwnNetwork"]}))
    family = Own.load(str(folder), device=torch.device("cpu"))
    assert type(family.network) is OwnNetwork
    with pytest.raises(UserError, match="'vae' is a own_package OwnNetwork, which is not supported"):
        family.encode_images(torch.zeros(1, 3, 16, 16))
