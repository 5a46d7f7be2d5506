"""Whether weights on disk fit a denoiser: read from the headers of the files, before anything is loaded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from bench.core.errors import UserError
from bench.models.checkpoints.component import component_weights, unmerged
from bench.models.checkpoints.original_names import original_names
from bench.models.checkpoints.strength import stated_config, without_denoiser

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
INTEGERS = ("I64", "I32", "I16", "I8", "U8")
"""Names of safetensors for the types that are read; of integers only alphas and what is no floating-point number in the network."""

ORIGINAL = "model.diffusion_model."
"""Prefix of the denoiser's names in a single-file checkpoint in the original layout."""

SHARED = "lora_unet_"
"""Prefix of a UNet's layers in kohya's layout, which most user interfaces read; dots are replaced by underscores.

The layers have diffusers' names, or those of the UNet's original code.
"""

SHARED_FACTORS = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
ALPHA = ".alpha"

FACTORS = {".lora_A.weight": 1, ".lora_B.weight": 0}
"""The two factors of an adapter, each with the axis that it shares with the weight it changes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What a file says of a tensor.

    Attributes:
        shape: its sizes.
        kind: its type, as safetensors calls it.
    """

    shape: tuple[int, ...]
    kind: str


Headers = Mapping[str, Header]
Shapes = Mapping[str, tuple[int, ...]]


def check_fits(place: Path, network: nn.Module, model: str) -> None:
    """Check that a file or folder holds all weights of ``network``, or adapters of it.

    Args:
        place: a safetensors file, or a folder of them.
        network: the base model's denoiser.
        model: its name, for messages.

    Raises:
        UserError: a weight is missing, unexpected, or of another shape, or its type is not one of real numbers.
    """
    found, here = headers(place), network.state_dict()
    unmerged(place, found)
    shapes = {name: tuple(value.shape) for name, value in here.items()}
    if holds_adapters(found):
        names = adapter_names(found, network)
        _check_one_file(place)
        _check_types(place, found, {name for name, plain in names.items() if plain.endswith(ALPHA)})
        _check_adapters(place, {name: each.shape for name, each in found.items()}, names, shapes, model)
        stated_strength(place, found)
    else:
        _check_types(place, found, {name for name, value in here.items() if not value.is_floating_point()})
        _check_full(place, {name: each.shape for name, each in found.items()}, shapes, model)


def holds_adapters(names: Iterable[str]) -> bool:
    """Whether some of the names are those of adapters, in any layout."""
    return any("lora" in name for name in names)


def adapter_names(names: Iterable[str], network: nn.Module) -> dict[str, str]:
    """Names of adapters in diffusers' layout without the denoiser's prefix, by the names in the file.

    They are ``<layer>.lora_A.weight``, ``<layer>.lora_B.weight`` and ``<layer>.alpha``; a name of neither layout is returned unchanged.
    """
    layers = _shared_layers(network)
    return {name: _plain(name, layers) for name in names}


def _shared_layers(network: nn.Module) -> dict[str, str]:
    """Diffusers' names of a network's layers, by every name that kohya's layout has for them."""
    layers = [name for name, _ in network.named_modules()]
    depth = getattr(getattr(network, "config", None), "layers_per_block", None)
    original = original_names(set(layers), depth) if isinstance(depth, int) else {}
    known = [*((layer, layer) for layer in layers), *original.items()]
    return {f"{SHARED}{name.replace('.', '_')}": layer for layer, name in known}


def _plain(name: str, layers: Mapping[str, str]) -> str:
    layer, _, rest = name.partition(".")
    if layer in layers:
        return f"{layers[layer]}.{SHARED_FACTORS.get(rest, rest)}"
    return without_denoiser(name)


def loaded_files(place: Path) -> list[Path]:
    """The safetensors files that `ModelFamily.load_trained` reads from a file or folder.

    Args:
        place: a file, the folder of a diffusers network, or a folder with one file, whatever its name.

    Raises:
        UserError: some are missing, or the folder holds none, or several of which one must be chosen.
    """
    if place.is_file():
        return [place]
    if (place / "config.json").exists():
        return list(component_weights(place).files)
    files = sorted(place.glob("*.safetensors"))
    if not files:
        raise UserError(f"{place} holds no safetensors weights; give a folder that does")
    if len(files) > 1:
        raise UserError(
            f"{place} holds {len(files)} safetensors files; give one of them by its path: {' or '.join(map(str, files))}"
        )
    return files


def stated_strength(place: Path, names: Iterable[str]) -> dict[str, Any]:
    """PEFT's configuration of the adapters in a file or folder, which says again what alphas beside the factors say; empty with these.

    Args:
        place: a safetensors file, or a folder that holds one.
        names: the names of the tensors in it.

    Raises:
        UserError: see `bench.models.checkpoints.strength.stated_config`.
    """
    [file] = loaded_files(place)
    return {} if any(name.endswith(ALPHA) for name in names) else stated_config(file)


def headers(place: Path) -> dict[str, Header]:
    """What is said of the tensors that are loaded from a file or folder, by name.

    Raises:
        UserError: as `loaded_files`, or a file is damaged.
    """
    found: dict[str, Header] = {}
    for path in loaded_files(place):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (a safetensors file is not a mapping)
                    piece = file.get_slice(name)
                    found[name] = Header(tuple(piece.get_shape()), piece.get_dtype())
        except SafetensorError as error:
            raise UserError(f"{path} cannot be read ({error}); download it again") from error
    return found


def _check_one_file(place: Path) -> None:
    if len(files := loaded_files(place)) > 1:
        raise UserError(f"{place} holds adapters in {len(files)} files, and one is read; save them as one file")


def _check_types(place: Path, found: Headers, integers: Collection[str]) -> None:
    """Raise a `UserError` for a tensor that is not of real numbers, of which a part would be lost, or of numbers that nothing here reads."""
    for name, each in sorted(found.items()):
        if each.kind not in FLOATS and not (name in integers and each.kind in INTEGERS):
            raise UserError(
                f"{place}: {name} is of the type {each.kind}, and {', '.join(FLOATS)} are read; save the weights in one of these"
            )


def _check_full(folder: Path, found: Shapes, here: Shapes, model: str) -> None:
    if any(name.startswith(ORIGINAL) for name in found):
        raise UserError(
            f"{folder} is a checkpoint in the original layout; turn it into a folder with diffusers first: "
            "from_single_file(FILE), then save_pretrained(FOLDER)"
        )
    for name in sorted({*found, *here}):
        if found.get(name) != here.get(name):
            raise UserError(
                f"{folder} holds another architecture than {model!r}: {name} is {_shape(found.get(name))} there and "
                f"{_shape(here.get(name))} in the model; give weights of the same kind of model"
            )


def _check_adapters(folder: Path, found: Shapes, diffusers_names: Mapping[str, str], here: Shapes, model: str) -> None:
    if len(set(diffusers_names.values())) < len(diffusers_names):
        raise UserError(f"{folder} holds adapters of one layer under several names; download another copy of it")
    ranks: dict[str, dict[str, int]] = {}
    for name, shape in sorted(found.items()):
        plain = diffusers_names[name]
        if plain.endswith(ALPHA) and math.prod(shape) == 1 and f"{plain.removesuffix(ALPHA)}.weight" in here:
            continue
        factor = next((ending for ending in FACTORS if plain.endswith(ending)), None)
        changed = None if factor is None else here.get(f"{plain.removesuffix(factor)}.weight")
        if factor is None or changed is None or not _fits(factor, shape, changed):
            raise UserError(
                f"{folder}: {name} {_shape(shape)} is not an adapter of the denoiser of {model!r}; give a LoRA for this kind of "
                "model, for its denoiser alone, in the layout of diffusers' save_lora_weights or, of a UNet, in kohya's"
            )
        ranks.setdefault(plain.removesuffix(factor), {})[factor] = shape[1 - FACTORS[factor]]
    for layer, by_factor in ranks.items():
        if len(by_factor) < len(FACTORS) or len(set(by_factor.values())) > 1 or 0 in by_factor.values():
            stated = " and ".join(
                f"{factor.removesuffix('.weight')[1:]} of rank {rank}" for factor, rank in by_factor.items()
            )
            raise UserError(
                f"{folder}: the adapter of {layer} has {stated}, but needs two factors of one rank, at least 1; download it again"
            )


def _fits(factor: str, shape: tuple[int, ...], changed: tuple[int, ...]) -> bool:
    """Whether a factor of an adapter is one of a matrix or a convolution of this shape, up to the rank.

    Of a convolution the first factor has the kernel, and the second one has a kernel of one pixel.
    """
    kernel = changed[2:] if FACTORS[factor] == 1 else (1,) * len(changed[2:])
    same = len(shape) == len(changed) > 1 and shape[FACTORS[factor]] == changed[FACTORS[factor]]
    return same and shape[2:] == kernel


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a number"
