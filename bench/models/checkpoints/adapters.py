"""Low-rank adapters on disk: in diffusers' layout, and in kohya's, which most user interfaces read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.files import replace_file
from bench.models.checkpoints.compatibility import ALPHA, adapter_names, loaded_files, stated_strength
from bench.models.checkpoints.pipeline_folder import check_finite
from bench.models.checkpoints.strength import strength

ADAPTERS = "pytorch_lora_weights.safetensors"
FIRST, SECOND = ".lora_A.weight", ".lora_B.weight"
UNET = "unet"
SUFFIX = ".safetensors"


def save_adapters(network: nn.Module, folder: Path, name: str) -> None:
    """Write the adapters of a network for ``load_lora_weights`` of a diffusers pipeline.

    Args:
        name: the pipeline's name for the network, the first part of every adapter's name.
    """
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    layers = {f"{name}.{key}": value.contiguous() for key, value in get_peft_model_state_dict(network).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(layers, folder / ADAPTERS, {"format": "pt"})


def join_adapters(folders: Sequence[Path], output: Path) -> None:
    """Write adapters that do what those of several folders do together, whose rank is the sum of theirs.

    A layer's first factor is (r, ...) and its second one (..., r) or (..., r, 1, 1); they act with the factor 1, as `save_adapters` writes them.

    Args:
        folders: what `save_adapters` wrote, for the same network, each trained on top of those before.
        output: the folder to write to.

    Raises:
        ValueError: the folders hold adapters for different layers, or something besides their factors.
    """
    from safetensors.torch import save_file

    each = [read_tensors(folder / ADAPTERS) for folder in folders]
    names = each[0].keys()
    if any(tensors.keys() != names for tensors in each) or not all(name.endswith((FIRST, SECOND)) for name in names):
        raise ValueError(f"the adapters in {', '.join(map(str, folders))} cannot be joined: their layers differ")
    # (B1 B2)(A1; A2) = B1 A1 + B2 A2: the axis of the rank is the second factor's second one, and the first factor's first one.
    joined = {
        name: torch.cat([tensors[name] for tensors in each], dim=1 if name.endswith(SECOND) else 0) for name in each[0]
    }
    output.mkdir(parents=True, exist_ok=True)
    save_file(joined, output / ADAPTERS, {"format": "pt"})


def with_adapters(network: Any, place: Path, name: str) -> nn.Module:
    """The network with adapters, added in place, in either layout, with their alphas, with or without the denoiser's name as a prefix.

    Alphas are read where programs leave them: beside the factors, in the file's header, or in ``adapter_config.json`` beside it.

    Args:
        place: a safetensors file, or a folder that holds one.
        name: see `save_adapters`.

    Raises:
        UserError: there are no adapters for this network, one is not finite, or their configuration is damaged.
    """
    [file] = loaded_files(place)
    tensors = read_tensors(file)
    adapters = plain_adapters(tensors, network, stated_strength(place, tensors))
    layers = {layer for layer, _ in network.named_modules()}
    if not adapters or not {key.rpartition(".lora_")[0] for key in adapters} <= layers:
        raise UserError(f"{place} holds no adapters for a {name}; give the folder of a trained network")
    network.load_lora_adapter(adapters, prefix=None)
    check_finite(network, place)
    return network.eval().requires_grad_(False)  # type: ignore[no-any-return]


def plain_adapters(
    tensors: Mapping[str, Tensor], network: nn.Module, stated: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Tensor]:
    """Adapters in diffusers' layout without the denoiser's prefix, in float32, with their strength multiplied into the second factor.

    Args:
        tensors: tensors in either layout; an adapter of rank r with an alpha acts with the factor alpha / r, and with 1 without.
        network: the network whose layers they change.
        stated: PEFT's configuration, which says the alphas of adapters that have none beside them.
    """
    names = adapter_names(tensors, network)
    values = {names[name]: value.float() for name, value in tensors.items()}
    adapters = {}
    for name, value in values.items():
        layer, is_second, _ = name.partition(SECOND)
        if is_second:
            alpha, rank = values.get(f"{layer}{ALPHA}"), value.shape[1]
            adapters[name] = value * (strength(layer, rank, stated) if alpha is None else float(alpha) / rank)
        elif not name.endswith(ALPHA):
            adapters[name] = value
    return adapters


def export_adapters(trained: Path, output: Path) -> None:
    """Write the adapters of a trained UNet as one file in kohya's layout, which most user interfaces read.

    Args:
        trained: the folder that `save_adapters` wrote.
        output: the safetensors file; one that already holds these adapters is left unchanged.

    Raises:
        UserError: the folder holds full weights, or adapters of a transformer; or the output has another suffix, or holds
            something else.
    """
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
    from safetensors.torch import save

    if output.suffix != SUFFIX:
        raise UserError(f"{str(output)!r} must end in {SUFFIX}")

    if not (trained / ADAPTERS).is_file():
        raise UserError(
            f"{trained} holds full weights, and this layout is for adapters; diffusers loads the folder directly, and "
            "--set trainable=lora trains adapters"
        )
    tensors = read_tensors(trained / ADAPTERS)
    if not all(name.startswith(f"{UNET}.") for name in tensors):
        raise UserError(
            f"{trained} holds adapters of a transformer, which user interfaces read in diffusers' layout; use {ADAPTERS} directly"
        )
    shared = {name: value.contiguous() for name, value in convert_state_dict_to_kohya(tensors).items()}
    content = save(shared, {"format": "pt"})
    if not output.exists():
        replace_file(output, lambda partial: partial.write_bytes(content))
    elif output.is_dir() or output.read_bytes() != content:
        raise UserError(f"{output} exists and is not an export of this run; choose another file, or delete it")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(file)
    return tensors
