"""The five scorers, small, with the weights of the golden values, loaded from folders in the published layouts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.core.files import write_json
from bench.tiny.building.tokenizer import write_bert_tokenizer, write_clip_tokenizer
from metrics.aesthetic import Aesthetic
from metrics.clip import ClipScore
from metrics.hpsv2 import HPSv2
from metrics.imagereward import ImageReward
from metrics.pickscore import PickScore

# The tests beside this file share a helper, which is in no package.
sys.path.insert(0, str(Path(__file__).parent))
from filled import GOLDEN, stored_ids, weight, weights

CPU = torch.device("cpu")
LENGTH = 77


def transformers_names(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of OpenAI's CLIP under the names of transformers."""
    renames = {
        "visual.transformer.resblocks": "vision_model.encoder.layers",
        "transformer.resblocks": "text_model.encoder.layers",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1": "vision_model.embeddings.patch_embedding",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "visual.proj": "visual_projection.weight",
        "token_embedding": "text_model.embeddings.token_embedding",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final": "text_model.final_layer_norm",
        "text_projection": "text_projection.weight",
        ".ln_1.": ".layer_norm1.",
        ".ln_2.": ".layer_norm2.",
        ".attn.out_proj": ".self_attn.out_proj",
        ".mlp.c_fc.": ".mlp.fc1.",
        ".mlp.c_proj.": ".mlp.fc2.",
    }
    named: dict[str, Tensor] = {}
    for key, value in official.items():
        name = key
        for old, new in renames.items():
            if old in name and not (old == "positional_embedding" and name.startswith("vision_model")):
                name = name.replace(old, new)
        if ".attn.in_proj_" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                named[name.replace(".attn.in_proj_", f".self_attn.{letter}_proj.")] = part.contiguous()
        else:
            named[name] = (
                value.T.contiguous()
                if name.endswith("l_projection.weight") or name == "text_projection.weight"
                else value
            )
    return named


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one checkpoint folder per scorer."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name in ("pickscore", "hpsv2", "clip"):
        write_clip_tokenizer(root / name)
    write_bert_tokenizer(root / "imagereward")

    golden = GOLDEN["pickscore"]
    write_json(root / "pickscore" / "config.json", golden["config"])
    # Files of that time hold index buffers, too.
    places = {"text_model.embeddings.position_ids": torch.arange(LENGTH)[None]}
    save_file(weights(golden["shapes"], "pick:") | places, root / "pickscore" / "model.safetensors")

    golden = GOLDEN["hpsv2"]
    write_json(root / "hpsv2" / "open_clip_config.json", {"model_cfg": golden["config"]})
    torch.save({"state_dict": weights(golden["shapes"])}, root / "hpsv2" / "HPS_v2.1_small.pt")

    golden = GOLDEN["imagereward"]
    write_json(root / "imagereward" / "med_config.json", golden["config"])
    write_json(root / "imagereward" / "vision_config.json", golden["vision_config"])
    places = {"blip.text_encoder.embeddings.position_ids": torch.arange(512)[None]}
    torch.save(weights(golden["shapes"]) | places, root / "imagereward" / "ImageReward.pt")

    golden = GOLDEN["clip"]
    numbers = golden["config"]
    text = {
        "vocab_size": 49408, "hidden_size": numbers["transformer_width"], "num_hidden_layers": 2,
        "intermediate_size": 4 * numbers["transformer_width"], "num_attention_heads": 4, "eos_token_id": 2,
    }  # fmt: skip
    vision = {
        "hidden_size": numbers["vision_width"], "num_hidden_layers": 2, "patch_size": 14, "num_attention_heads": 2,
        "intermediate_size": 4 * numbers["vision_width"],
    }  # fmt: skip
    write_json(root / "clip" / "config.json", {"projection_dim": 768, "text_config": text, "vision_config": vision})
    state = transformers_names(weights(golden["shapes"], "oai:"))
    save_file(state, root / "clip" / "model.safetensors")

    (root / "aesthetic").mkdir()
    (root / "aesthetic" / "clip").symlink_to(root / "clip")
    widths = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    head = {f"layers.{place}.weight": weight(f"layers.{place}.weight", shape) for place, shape in widths.items()}
    head |= {f"layers.{place}.bias": weight(f"layers.{place}.bias", shape[:1]) for place, shape in widths.items()}
    torch.save(head, root / "aesthetic" / "head.pth")
    return root


@pytest.fixture(scope="session")
def pickscore(checkpoints: Path) -> PickScore:
    """PickScore with the golden weights and token ids."""
    scorer = PickScore.load(str(checkpoints / "pickscore"), device=CPU)
    scorer.tokenize = stored_ids("clip", LENGTH, 49407)
    return scorer


@pytest.fixture(scope="session")
def hpsv2(checkpoints: Path) -> HPSv2:
    """HPSv2 with the golden weights and token ids."""
    scorer = HPSv2.load(str(checkpoints / "hpsv2"), device=CPU)
    scorer.tokenize = stored_ids("clip_cleaned", LENGTH, 49407)
    return scorer


@pytest.fixture(scope="session")
def hpsv2_antialiased(checkpoints: Path) -> HPSv2:
    """The same with smoothing."""
    scorer = HPSv2.load(str(checkpoints / "hpsv2"), device=CPU, antialias=True)
    scorer.tokenize = stored_ids("clip_cleaned", LENGTH, 0)
    return scorer


@pytest.fixture(scope="session")
def imagereward(checkpoints: Path) -> ImageReward:
    """ImageReward with the golden weights and token ids."""
    scorer = ImageReward.load(str(checkpoints / "imagereward"), device=CPU)
    ids = stored_ids("bert", 35, 0)

    def tokenize(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return ids(prompts), (ids(prompts) != 0).long()

    scorer.tokenize = tokenize
    return scorer


@pytest.fixture(scope="session")
def clip(checkpoints: Path) -> ClipScore:
    """CLIPScore with the golden weights and token ids."""
    scorer = ClipScore.load(str(checkpoints / "clip"), device=CPU)
    scorer.tokenize = stored_ids("clip_cleaned", LENGTH, 0)
    return scorer


@pytest.fixture(scope="session")
def aesthetic(checkpoints: Path) -> Aesthetic:
    """The aesthetic predictor with the golden image tower and a head that is filled like it."""
    return Aesthetic.load(str(checkpoints / "aesthetic"), device=CPU)
