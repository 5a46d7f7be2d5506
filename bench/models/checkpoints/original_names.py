"""The names of a UNet's layers in the code it was first published with, which some LoRAs use.

There the blocks of each side are numbered consecutively, samplers included, and so are a block's parts: 0 is the residual
layer, 1 the attention (Rombach et al. 2022, ``openaimodel.py``; for SDXL, Podell et al. 2023, ``generative-models``).
"""

from __future__ import annotations

import re
from collections.abc import Collection

BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
RESIDUAL = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
MIDDLE = {"mid_block.resnets.0": 0, "mid_block.attentions.0": 1, "mid_block.resnets.1": 2}


def original_names(layers: Collection[str], layers_per_block: int) -> dict[str, str]:
    """The original names of a UNet's layers, by diffusers' names; layers that have none are left out.

    Args:
        layers: names of all modules of the network.
        layers_per_block: the field of its configuration.
    """
    found = {layer: _original_name(layer, layers, layers_per_block) for layer in layers}
    return {layer: name for layer, name in found.items() if name is not None}


def _original_name(layer: str, layers: Collection[str], depth: int) -> str | None:
    if match := BLOCK.fullmatch(layer):
        side, block, kind, place, rest = match.groups()
        first = int(block) * (depth + 1)
        match side, kind:
            case "down", "downsamplers":
                return f"input_blocks.{first + depth + 1}.0.op"
            case "up", "upsamplers":
                part = 2 if f"up_blocks.{block}.attentions.0" in layers else 1
                return f"output_blocks.{first + depth}.{part}.{rest}"
            case "down", _:
                return f"input_blocks.{first + 1 + int(place)}.{_part(kind, rest)}"
            case _:
                return f"output_blocks.{first + int(place)}.{_part(kind, rest)}"
    for start, part in MIDDLE.items():
        if layer.startswith(f"{start}."):
            rest = layer.removeprefix(f"{start}.")
            return f"middle_block.{part}.{RESIDUAL.get(rest, rest)}"
    return OUTSIDE.get(layer)


def _part(kind: str, rest: str) -> str:
    return f"0.{RESIDUAL.get(rest, rest)}" if kind == "resnets" else f"1.{rest}"
