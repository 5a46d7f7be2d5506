"""The weights of one component of a diffusers pipeline on disk: which files they are, and whether they are complete."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.core.digests import files_digest
from bench.core.errors import UserError
from bench.core.inputs import read_bytes, regular
from bench.core.paths import inside
from bench.core.values import digest
from bench.models.checkpoints.stated import MOST, json_of_model, read_object

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
SINGLE = re.compile(r"(?:diffusion_pytorch_)?model(?:\.(?P<variant>\w+))?\.safetensors")
INDEX_OF_SHARDS = re.compile(r"(?:diffusion_pytorch_)?model\.safetensors\.index(?:\.(?P<variant>\w+))?\.json")
CONFIG = "config.json"
CONFIGURATIONS = (CONFIG, "adapter_config.json")
"""What says beside weights how they are used."""
TEXTS = ("*.json", "*.txt", "*.model")
"""Files of a tokenizer or a scheduler."""
DOCUMENTS = ("readme", "license", "notice")
ORIGIN = ("_name_or_path", "_diffusers_version")
"""Entries of configurations that nothing reads."""
BESIDE = ".base_layer."
"""In the name of a weight that PEFT has put an adapter beside."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclasses.dataclass(frozen=True, slots=True)
class ComponentWeights:
    """The files that are loaded for a component.

    Attributes:
        files: one or several shards, in order of their names.
        variant: the part of their names, such as ``fp16``, that distinguishes other weights of the same network; None
            if they have none.
    """

    files: tuple[Path, ...]
    variant: str | None


def component_weights(folder: Path) -> ComponentWeights:
    """The safetensors files of a component, each checked to be complete: those without a variant, or the only variant.

    Raises:
        UserError: there are none, or only several variants; one is missing or truncated; or they are pickled.
    """
    found = _by_variant(folder)
    if not found:
        raise UserError(f"{folder} {_why_no_weights(folder)}")
    if None not in found and len(found) > 1:
        raise UserError(
            f"{folder} holds weights in the variants {' and '.join(sorted(map(str, found)))}, and none without; keep one of them"
        )
    variant = None if None in found else next(iter(found))
    for file in found[variant]:
        _check_whole(file)
    return ComponentWeights(found[variant], variant)


def _by_variant(folder: Path) -> dict[str | None, tuple[Path, ...]]:
    """Files by variant; if there are both shards and a single file, diffusers loads the shards."""
    paths = sorted(folder.iterdir())
    whole = {match["variant"]: (path,) for path in paths if (match := SINGLE.fullmatch(path.name))}
    shards = {
        match["variant"]: tuple(folder / name for name in _shard_names(path))
        for path in paths
        if (match := INDEX_OF_SHARDS.fullmatch(path.name))
    }
    return {**whole, **shards}


def _shard_names(index: Path) -> list[str]:
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{index} has no weight_map from weights to files; download the model again")
    return sorted({inside(index.parent, name).relative_to(index.parent).as_posix() for name in names.values()})


def _why_no_weights(folder: Path) -> str:
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled:
        return (
            f"holds pickled weights ({pickled[0]}), which can run code when they are loaded; "
            "if you trust them, convert them to safetensors with save_pretrained"
        )
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        return f"holds only {others[0]}; save the model as {' or '.join(WEIGHTS)}"
    return "holds no safetensors weights; the download is incomplete, download the model again"


def unmerged(place: Path, names: Iterable[str]) -> None:
    """Raise a `UserError` if weights of these names were saved with adapters beside them that are not merged."""
    if any(BESIDE in name for name in names):
        raise UserError(
            f"{place} holds weights with adapters that are not merged into them; merge them (fuse_lora and unload_lora, or "
            "merge_and_unload of PEFT) and save the model again"
        )


def _check_whole(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    regular(file)
    try:
        with safe_open(file, framework="pt"):
            pass
    except (FileNotFoundError, SafetensorError) as error:
        state = "truncated" if file.exists() else "missing"
        raise UserError(f"{file} is {state}; the download is incomplete, download the model again") from error


def network_digest(folder: Path, kind: str) -> str:
    """Digest of all that is loaded of a network's folder, 12 hex digits: its weights and its configuration.

    Neither how JSON is formatted nor documents, images and weights that are not loaded matter.

    Args:
        kind: what class it is, which the pipeline's index says.

    Raises:
        UserError: as `component_weights`, or the configuration is not JSON.
    """
    return digest({"kind": kind, "weights": files_digest(component_weights(folder).files), **configurations(folder)})


def texts_digest(folder: Path, kind: str) -> str:
    """The same for a tokenizer or a scheduler: a digest of its JSON and text files.

    Raises:
        UserError: a file is not JSON.
    """
    files = sorted(file for pattern in TEXTS for file in folder.glob(pattern) if file.stem.lower() not in DOCUMENTS)
    read = {file.name: _json(file) if file.suffix == ".json" else files_digest([file]) for file in files}
    return digest({"kind": kind, **read})


def place_digest(files: Sequence[Path]) -> str:
    """Digest of weights that are not a part of a pipeline, 16 hex digits: of the files, and of configurations beside them."""
    weights, stated = files_digest(files), configurations(files[0].parent)
    return hashlib.sha256(f"{weights}{digest(stated)}".encode()).hexdigest()[:16] if stated else weights


def configurations(folder: Path) -> dict[str, Any]:
    """What the configurations beside some weights say of them, by name of the file."""
    return {name: _json(folder / name) for name in CONFIGURATIONS if (folder / name).is_file()}


def _json(file: Path) -> Any:
    """A JSON file without what names its origin; the order of the entries of a vocabulary counts."""
    value = json_of_model(read_bytes(file, MOST), str(file))
    if not isinstance(value, dict):
        return value
    kept = {name: each for name, each in value.items() if name not in ORIGIN}
    return kept if file.name.endswith(CONFIG) else list(kept.items())
