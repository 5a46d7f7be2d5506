"""Writing the tiny scorers in the layouts of the published checkpoints, as half-precision weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.core.files import write_json

State = dict[str, Tensor]

# Kept separate from the tables by which `metrics` reads these layouts: with a shared table, a wrong name would be written and
# read back unnoticed.
_OPEN_CLIP = {
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "visual_projection.weight": "visual.proj",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_projection.weight": "text_projection",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".self_attn.": ".attn.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}
_TIMM = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding.": "patch_embed.proj.",
    "encoder.layers.": "blocks.",
    "post_layernorm.": "norm.",
    ".layer_norm1.": ".norm1.",
    ".layer_norm2.": ".norm2.",
    ".self_attn.qkv.": ".attn.qkv.",
    ".self_attn.projection.": ".attn.proj.",
}


def write_clip(folder: Path, model: Any) -> None:
    """A CLIP model, or its image tower, in transformers' layout: ``config.json`` and ``model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.to_json_file(folder / "config.json")
    save_file(halved(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})


def write_open_clip(folder: Path, name: str, model: Any) -> None:
    """A CLIP model in HPSv2's layout: weights under open_clip's names, and ``open_clip_config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": open_clip_state(model.state_dict())}, folder / name)
    vision, text = model.config.vision_config, model.config.text_config
    card = {
        "embed_dim": model.config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "patch_size": vision.patch_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
        },
    }
    write_json(folder / "open_clip_config.json", {"model_cfg": card})


def open_clip_state(state: State) -> State:
    """Weights of a `transformers.CLIPModel` under open_clip's names: q, k and v stacked, projections transposed."""
    renamed: State = {}
    halves = halved(state)
    for name, value in halves.items():
        official = _renamed(name, _OPEN_CLIP)
        if ".q_proj." in name:
            parts = [halves[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            renamed[official.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
        elif name in ("visual_projection.weight", "text_projection.weight"):
            renamed[official] = value.T.contiguous()
        elif ".k_proj." not in name and ".v_proj." not in name:
            renamed[official] = value
    return renamed


def write_image_reward(folder: Path, *, vision: Any, text: Any, head: Any) -> None:
    """A BLIP with a reward head in ImageReward's layout: ``ImageReward.pt`` and the two configurations."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"blip.visual_encoder.{_renamed(name, _TIMM)}": value for name, value in vision.state_dict().items()}
    state |= {f"blip.text_encoder.{name}": value for name, value in text.state_dict().items()}
    state |= {f"mlp.layers.{name}": value for name, value in head.state_dict().items()}
    torch.save(halved(state), folder / "ImageReward.pt")
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
            "vocab_size", "hidden_act", "layer_norm_eps")  # fmt: skip
    write_json(folder / "med_config.json", {key: getattr(text.config, key) for key in keys})
    card = {
        "image_size": vision.config.image_size,
        "patch_size": vision.config.patch_size,
        "embed_dim": vision.config.hidden_size,
        "depth": vision.config.num_hidden_layers,
        "num_heads": vision.config.num_attention_heads,
    }
    write_json(folder / "vision_config.json", card)


def write_aesthetic(folder: Path, *, tower: Any, head: Any) -> None:
    """An image tower in the folder ``clip``, and the linear head next to it."""
    write_clip(folder / "clip", tower)
    torch.save(halved({f"layers.{name}": value for name, value in head.state_dict().items()}), folder / "head.pth")


def halved(state: State) -> State:
    """Float16 copies of the floating-point weights; index buffers are left out."""
    return {name: value.detach().half().contiguous() for name, value in state.items() if value.is_floating_point()}


def _renamed(name: str, table: dict[str, str]) -> str:
    for part, official in table.items():
        name = name.replace(part, official)
    return name
