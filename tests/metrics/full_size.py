"""Full-size checkpoints with random weights in the published layouts: ``python full_size.py write|score NAME FOLDER``.

``write`` makes the files, ``score`` loads and scores them in a process of its own, so that its peak memory is the scorer's, and
prints what it found as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from filled import GOLDEN, picture, weight
from safetensors.torch import save_file
from torch import Tensor

from bench.tiny.building.tokenizer import write_bert_tokenizer, write_clip_tokenizer
from metrics.hpsv2 import HPSv2
from metrics.imagereward import MEAN, STD, ImageReward
from metrics.pickscore import PickScore

KINDS: dict[str, Any] = {"pickscore": PickScore, "hpsv2": HPSv2, "imagereward": ImageReward}

# The golden files hold the official names of small networks: first part of the name, small width to published width, layers.
VIT_H_VISION = {80: 1280, 240: 3840, 320: 5120, 32: 1024}
VIT_H_TEXT = {64: 1024, 192: 3072, 256: 4096, 32: 1024}
GROWTH: dict[str, dict[str, tuple[dict[int, int], int]]] = {
    "pickscore": {"vision_model.": (VIT_H_VISION, 32), "visual_projection": (VIT_H_VISION, 0), "": (VIT_H_TEXT, 24)},
    "hpsv2": {"visual.": (VIT_H_VISION, 32), "": (VIT_H_TEXT, 24)},
    "imagereward": {
        "blip.visual_encoder.": ({64: 1024, 192: 3072, 256: 4096}, 24),
        "blip.text_encoder.": ({48: 768, 96: 3072, 64: 1024}, 12),
        "blip.": ({48: 768, 64: 1024}, 0),
        "mlp.": ({48: 768}, 0),
    },
}
CONFIG = {
    "projection_dim": 1024,
    "text_config": {
        "eos_token_id": 2, "vocab_size": 49408, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "max_position_embeddings": 77, "hidden_act": "gelu",
    },
    "vision_config": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
        "patch_size": 14, "image_size": 224, "hidden_act": "gelu",
    },
}  # fmt: skip


def full_shapes(name: str) -> dict[str, list[int]]:
    """Names and shapes of the published file."""
    shapes = {}
    for small, sizes in GOLDEN[name]["shapes"].items():
        prefix = next(prefix for prefix in GROWTH[name] if small.startswith(prefix))
        widths, layers = GROWTH[name][prefix]
        grown = [widths.get(size, size) for size in sizes]
        if ".0." in small and not small.startswith("mlp."):
            shapes |= {small.replace(".0.", f".{layer}."): grown for layer in range(layers)}
        elif ".1." not in small:
            shapes[small] = grown
    return shapes


def write(name: str, folder: Path) -> None:
    """Write the checkpoint; the fill is that of the golden files."""
    tensors: dict[str, Tensor] = {key: weight(key, shape) for key, shape in full_shapes(name).items()}
    match name:
        case "pickscore":
            write_clip_tokenizer(folder)
            (folder / "config.json").write_text(json.dumps(CONFIG))
            save_file(tensors, folder / "model.safetensors")
        case "hpsv2":
            write_clip_tokenizer(folder)
            torch.save({"state_dict": tensors}, folder / "HPS_v2.1_compressed.pt")
        case "imagereward":
            write_bert_tokenizer(folder)
            torch.save(tensors, folder / "ImageReward.pt")


def score(name: str, folder: Path) -> dict[str, Any]:
    """Load, score in a batch and one by one in another order, and in bf16."""
    images = [picture(each) for each in ("sq512", "odd549x400", "port300x500")]
    prompts = ["a bee on a red background", "a cat", "a bee on a red background"]
    begun = time.monotonic()
    scorer = KINDS[name].load(str(folder), device=torch.device("cpu"))
    loaded = time.monotonic() - begun
    after_loading = peak()
    batched = scorer.score(images, prompts)
    singly = torch.stack([scorer.score([images[place]], [prompts[place]])[0] for place in (2, 0, 1)])[[1, 2, 0]]
    network = scorer.network if name == "imagereward" else scorer.model
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "load_seconds": loaded,
        "peak_bytes_loading": after_loading,
        "peak_bytes": peak(),
        "scores": batched.tolist(),
        "batch_difference": (batched - singly).abs().max().item(),
        "bf16_difference": (batched - half(name, scorer, images, prompts)).abs().max().item(),
    }


@torch.inference_mode()
def half(name: str, scorer: Any, images: list[Any], prompts: list[str]) -> Tensor:
    """The scores with bf16 arithmetic, which no scorer offers."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if name == "imagereward":
            rewards = scorer.network(scorer.preprocessing.batch(images), *scorer.tokenize(prompts))
            return (rewards.float() - MEAN) / STD
        cosines = (scorer.image_embeddings(images).float() * scorer.text_embeddings(prompts).float()).sum(-1)
        return scorer.scale * cosines


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    action, kind, target = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if action == "write":
        write(kind, target)
    else:
        sys.stdout.write(json.dumps(score(kind, target)) + "\n")
