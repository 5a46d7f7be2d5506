"""Low-rank adapters on disk: in diffusers' layout, and in the one that user interfaces share (kohya's)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.files import replace_file
from bench.models.checkpoints.compatibility import ALPHA, adapter_names, loaded_files, without_denoiser
from bench.models.checkpoints.pipeline_folder import check_finite

ADAPTERS = "pytorch_lora_weights.safetensors"
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


def load_adapters(base: nn.Module, place: Path, name: str) -> nn.Module:
    """A copy of ``base`` with adapters, in either layout, with their alphas, with or without the denoiser's name in front.

    Args:
        place: a safetensors file, or a folder that holds one.
        name: see `save_adapters`.

    Raises:
        UserError: the place holds no adapters for this network, or one that is not finite.
    """
    network: Any = copy.deepcopy(base)
    [file] = loaded_files(place)
    tensors = read_tensors(file)
    adapters = plain_adapters(tensors, base)
    layers = {layer for layer, _ in base.named_modules()}
    if not adapters or not {key.rpartition(".lora_")[0] for key in adapters} <= layers:
        raise UserError(f"{place} holds no adapters for a {name}; give the folder of a trained network")
    # A header beside alphas says the same again.
    header = None if any(key.endswith(ALPHA) for key in tensors) else _stated_config(file)
    network.load_lora_adapter(adapters, prefix=None, metadata=header)
    check_finite(network, place)
    return network.eval().requires_grad_(False)  # type: ignore[no-any-return]


def plain_adapters(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Adapters in diffusers' layout without the denoiser in front, in float32, their alphas worked into the second factor.

    Args:
        tensors: of either layout; an adapter of rank r with an alpha acts with the factor alpha / r, and with 1 without.
        network: whose layers they change.
    """
    plainly = adapter_names(tensors, network)
    values = {plainly[name]: value.float() for name, value in tensors.items()}
    adapters = {}
    for name, value in values.items():
        alpha = values.get(f"{name.removesuffix('.lora_B.weight')}{ALPHA}")
        scaled = value if alpha is None else value * (float(alpha) / value.shape[1])
        if not name.endswith(ALPHA):
            adapters[name] = scaled
    return adapters


def _stated_config(file: Path) -> dict[str, Any] | None:
    """PEFT's configuration of the denoiser's adapters, alphas among it, which diffusers can leave in a file's header."""
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        header = opened.metadata() or {}
    stated: dict[str, Any] = json.loads(header.get(LORA_ADAPTER_METADATA_KEY, "{}"))
    plainly = {without_denoiser(field): value for field, value in stated.items()}
    return {field: value for field, value in plainly.items() if "." not in field} or None


def export_adapters(trained: Path, output: Path) -> None:
    """Write the adapters of a trained UNet as one file in the layout that user interfaces share.

    Args:
        trained: the folder that `save_adapters` wrote.
        output: the safetensors file; one that holds these very adapters stays as it is.

    Raises:
        UserError: the folder holds full weights, or adapters of a transformer; or the output has another name, or holds
            something else.
    """
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
    from safetensors.torch import save

    if output.suffix != SUFFIX:
        raise UserError(f"{str(output)!r} must end in {SUFFIX}")

    if not (trained / ADAPTERS).is_file():
        raise UserError(
            f"{trained} holds full weights, and this layout is for adapters; diffusers loads the folder as it is, and "
            "--set trainable=lora trains adapters"
        )
    tensors = read_tensors(trained / ADAPTERS)
    if not all(name.startswith(f"{UNET}.") for name in tensors):
        raise UserError(
            f"{trained} holds adapters of a transformer, which user interfaces read in diffusers' layout; give them {ADAPTERS}"
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
