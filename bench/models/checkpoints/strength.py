"""How strongly adapters act: by PEFT's configuration, which is in the header of their file or beside it."""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.inputs import read_bytes
from bench.core.strict import quoted
from bench.models.checkpoints.stated import MOST, json_of_model

CONFIG = "adapter_config.json"
"""PEFT's configuration beside a file of adapters."""
DENOISERS = ("unet.", "transformer.")
"""Prefixes of the names of a pipeline's denoiser adapters."""
PATTERN = re.compile(r"(?:(?:\\[.dw]|[\w.]|\[[\w-]+\])[*+?]?|[()|^$])*", re.ASCII)
"""Regular expressions for names of layers that are read: in them only single characters are repeated."""
MOST_REPEATED, MOST_ALTERNATIVES = 2, 8
"""How often that occurs in one of them, and ``|``: the time of a match may multiply with each."""


def strength(layer: str, rank: int, stated: Mapping[str, Any]) -> float:
    """The factor with which an adapter acts, by PEFT's configuration: alpha / rank, or alpha / sqrt(rank) of rsLoRA.

    Args:
        layer: the layer's name.
        rank: rank of the adapter.
        stated: ``lora_alpha`` holds for all layers but those that a key of ``alpha_pattern``, a regular expression for the end of
            the name, matches; without either the factor is 1.
    """
    alpha = stated.get("lora_alpha", rank)
    for pattern, own in stated.get("alpha_pattern", {}).items():
        if _ending(pattern).match(layer):
            alpha = own
            break
    return float(alpha) / (math.sqrt(rank) if stated.get("use_rslora") else rank)


@functools.lru_cache(1 << 16)  # networks have hundreds of layers, and a configuration may have a pattern for each
def _ending(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({without_denoiser(pattern)})$")


def _is_plain(pattern: str) -> bool:
    """Whether a pattern for names of layers is valid, and is matched in no time."""
    repeated, alternatives = len(re.findall(r"[*+?]", pattern)), pattern.count("|")
    if not PATTERN.fullmatch(pattern) or repeated > MOST_REPEATED or alternatives > MOST_ALTERNATIVES:
        return False
    try:
        _ending(pattern)
    except re.error:
        return False
    return True


def stated_config(file: Path) -> dict[str, Any]:
    """PEFT's configuration of the denoiser's adapters: of the file's header, where diffusers leaves it, or beside the file.

    Raises:
        UserError: it is damaged, or an alpha is not finite, or is stated for layers that are named in a way that is not read.
    """
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        header = (opened.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY)
    if header is not None:
        plainly = {without_denoiser(field): value for field, value in _object(header, file).items()}
        return _checked({field: value for field, value in plainly.items() if "." not in field}, file)
    beside = file.parent / CONFIG
    return _checked(_object(read_bytes(beside, MOST), beside), beside) if beside.is_file() else {}


def _object(text: str | bytes, file: Path) -> dict[str, Any]:
    value = json_of_model(text, f"{file}: the configuration of the adapters")
    if not isinstance(value, dict):
        raise UserError(f"{file}: the configuration of the adapters is not a JSON object; download the model again")
    return value


def _checked(stated: dict[str, Any], file: Path) -> dict[str, Any]:
    patterns = stated.get("alpha_pattern") or {}
    alphas: list[Any] = [stated.get("lora_alpha", 1), *(patterns.values() if isinstance(patterns, dict) else [None])]
    for alpha in alphas:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= sys.float_info.max:
            raise UserError(
                f"{file}: lora_alpha and the values of alpha_pattern must be numbers, found {quoted(alpha)}"
            )
    for pattern in patterns:
        if not _is_plain(pattern):
            raise UserError(
                f"{file}: the key {quoted(pattern)} of alpha_pattern is not a pattern for names of layers that is read; write the "
                "names of the layers there"
            )
    return {**stated, "alpha_pattern": patterns}


def without_denoiser(name: str) -> str:
    """The name of an adapter without the denoiser's prefix."""
    for denoiser in DENOISERS:
        name = name.removeprefix(denoiser)
    return name
