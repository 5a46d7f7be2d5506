"""Where weights are that others released: a file, a folder, or a repository of the hub."""

from __future__ import annotations

from pathlib import Path

from bench.architecture import loaded_files
from bench.errors import UserError
from bench.hub import HUB_ID, hub_folder
from bench.models.folder import INDEX, PICKLED, VARIANTS

COMPONENTS = ("unet", "transformer")
"""Where a diffusers pipeline keeps its denoiser."""

WANTED = "a safetensors file, the folder of a diffusers unet or transformer, of a pipeline, or of a LoRA, or a hub id"


def find_released(typed: str) -> Path:
    """The safetensors file, or the folder that holds the denoiser or its adapters; of a hub id, downloaded once.

    Raises:
        UserError: there is nothing, or it is not all there, or it is pickled, or one of several files must be chosen.
    """
    path = Path(typed)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise UserError(f"{path} is no safetensors file, and others can run code when they are loaded; convert it")
        return path
    folder = path if path.is_dir() else _download(typed)
    places = [*(folder / component for component in COMPONENTS), folder]
    place = next((place for place in places if any(place.glob("*.safetensors"))), None)
    if place is None:
        pickled = sorted(file.name for each in places for pattern in PICKLED for file in each.glob(pattern))
        why = (
            f", only pickled ones ({pickled[0]}), which can run code when they are loaded: convert them"
            if pickled
            else ""
        )
        raise UserError(f"{typed} holds no safetensors weights{why}; give {WANTED}")
    loaded_files(place)
    return place


def _download(typed: str) -> Path:
    """The denoiser of a repository with a whole pipeline, and of any other what lies at its top."""
    if not HUB_ID.fullmatch(typed):
        raise UserError(f"weights {typed!r} do not exist; give {WANTED}")
    complaint = f"weights {typed!r} are neither here nor can they be had from the hub"
    parts = [f"{component}/*.{ending}" for component in COMPONENTS for ending in ("safetensors", "json")]
    folder = hub_folder(typed, [INDEX, *parts], kind="model", complaint=complaint, ignore=VARIANTS)
    if any((folder / component).is_dir() for component in COMPONENTS):
        return folder
    top = ["*.safetensors", "*.json"]
    return hub_folder(typed, top, kind="model", complaint=complaint, ignore=["*/*", *VARIANTS])
