"""The weights of one component of a diffusers pipeline on disk: which files they are, and whether they are whole."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path

from bench.core.errors import UserError
from bench.core.files import file_digest

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
SINGLE = re.compile(r"(?:diffusion_pytorch_)?model(?:\.(?P<variant>\w+))?\.safetensors")
INDEX_OF_SHARDS = re.compile(r"(?:diffusion_pytorch_)?model\.safetensors\.index(?:\.(?P<variant>\w+))?\.json")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclasses.dataclass(frozen=True, slots=True)
class ComponentWeights:
    """The files that are loaded of a component.

    Attributes:
        files: one or several shards, in order of their names.
        variant: the part of their names, such as ``fp16``, by which other weights of the same network are told apart; None
            where they have none.
    """

    files: tuple[Path, ...]
    variant: str | None


def component_weights(folder: Path) -> ComponentWeights:
    """The safetensors files of a component, each whole: those without a variant, or the only variant that is there.

    Raises:
        UserError: there are none, or several variants alone; one is missing or cut short; or they are pickled.
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
    """Files by variant; where there are shards and one file with everything, diffusers loads the shards."""
    paths = sorted(folder.iterdir())
    whole = {match["variant"]: (path,) for path in paths if (match := SINGLE.fullmatch(path.name))}
    shards = {
        match["variant"]: tuple(folder / name for name in _shard_names(path))
        for path in paths
        if (match := INDEX_OF_SHARDS.fullmatch(path.name))
    }
    return {**whole, **shards}


def _shard_names(index: Path) -> list[str]:
    names: dict[str, str] = json.loads(index.read_text())["weight_map"]
    return sorted(set(names.values()))


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
    return "holds no safetensors weights; the download is incomplete, fetch the model again"


def _check_whole(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt"):
            pass
    except (FileNotFoundError, SafetensorError) as error:
        state = "cut short" if file.exists() else "missing"
        raise UserError(f"{file} is {state}; the download is incomplete, fetch the model again") from error


def files_digest(files: Sequence[Path]) -> str:
    """The `bench.core.files.file_digest` of weights, computed once for each process."""
    return _digest(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@functools.cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """One process asks for the same gigabytes several times; sizes and times are in the key so that a change is seen."""
    return file_digest(*(file for file, _, _ in files))
