"""What is fetched of a repository of the hub that has weights in several variants."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub import local_hub
from safetensors.torch import load_file, save_file

PLAIN, HALF = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
SCRIPT = """
from bench.models.checkpoints.pipeline_folder import PipelineFolder
from bench.models.checkpoints.released import find_released

for name in ("both", "half"):
    print(PipelineFolder(f"someone/{name}", "StableDiffusionPipeline", ["unet", "vae", "tokenizer"]).path)
for name in ("both", "half", "lora", "half-lora"):
    print(find_released(f"someone/{name}"))
"""
FETCHED = [
    {f"unet/{PLAIN}", f"vae/{PLAIN}"},
    {f"unet/{HALF}", f"vae/{PLAIN}"},
    {PLAIN},
    {HALF},
    {"style.safetensors"},
    {"style.fp16.safetensors"},
]


@pytest.fixture(scope="module")
def hub(pipeline_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with both, one with a UNet in half precision alone, and LoRAs with and without another variant."""
    someone = tmp_path_factory.mktemp("hub") / "models" / "someone"
    both = shutil.copytree(pipeline_folder("sd15"), someone / "both")
    tensors = {name: value.half() for name, value in load_file(both / "unet" / PLAIN).items()}
    save_file(tensors, both / "unet" / HALF, {"format": "pt"})
    shutil.copytree(both, someone / "half")
    (someone / "half" / "unet" / PLAIN).unlink()
    for name, files in {"lora": ("style", "style.fp16"), "half-lora": ("style.fp16",)}.items():
        (someone / name).mkdir()
        for file in files:
            save_file(tensors, someone / name / f"{file}.safetensors")
    return someone.parents[1]


def test_a_variant_is_fetched_only_where_there_are_no_other_weights(hub: Path, tmp_path: Path) -> None:
    with local_hub(hub, tmp_path / "cache") as online:
        for variables in (online, {**online, "HF_HUB_OFFLINE": "1"}):
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT], env=variables, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            places = [Path(line) for line in done.stdout.splitlines()]
            found = [{path.relative_to(place).as_posix() for path in place.rglob("*.safetensors")} for place in places]
            assert found == FETCHED
