"""Pre-training of the scorers' towers on scenes: image and text are matched, and the image tower names what it sees.

Matching alone leaves places at chance, so heads that name every property are trained beside it and then thrown away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel, CLIPConfig, CLIPModel

from bench.scoring.images import CLIP_MEAN, CLIP_STD
from bench.tiny import world
from bench.tiny.building.captions import captions_of
from bench.tiny.building.checking import property_loss, targets
from bench.tiny.building.distortion import DistortedScenes
from bench.tiny.building.fitting import FitSettings, draws, fit
from bench.tiny.building.rewards import blip_reward, clamped_scale, encoded, linear_head
from bench.tiny.building.tokenizer import CONTEXT_LENGTH
from bench.tiny.checker import HEADS

BATCH = 128
CONTRASTIVE = FitSettings(steps=1500, learning_rate=1.5e-3, weight_decay=0.05, average=0.99, decay=0.5)
MATCHING = FitSettings(steps=1500, learning_rate=5e-4, weight_decay=0.05, warmup=200, average=0.99, decay=0.5)
WRONG_CAPTIONS = 7
NAMING = 0.5
"""Weight of the heads' loss beside the matching loss."""

VISION: dict[str, Any] = {
    "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 3,
    "image_size": world.RESOLUTION, "patch_size": 8, "hidden_act": "gelu",
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 3, "hidden_act": "gelu",
}  # fmt: skip


def naming_heads(width: int) -> nn.ModuleDict:
    """One linear head for every kind of property, on embeddings of ``width``."""
    return nn.ModuleDict({name: nn.Linear(width, size) for name, size in HEADS.items()})


def build_clip(tokenizer: Any) -> Any:
    """A new `CLIPModel` for the world's vocabulary."""
    torch.manual_seed(0)
    text = TEXT | {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT_LENGTH}
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
               "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    vision = VISION | {"projection_dim": 96}
    return CLIPModel(CLIPConfig(text_config=text | special, vision_config=vision, projection_dim=96))


def build_blip(tokenizer: Any) -> nn.ModuleDict:
    """A new BLIP: ``vision``, ``text`` and the reward ``head``."""
    torch.manual_seed(1)
    vision = BlipVisionModel(BlipVisionConfig(**VISION, layer_norm_eps=1e-6, initializer_range=0.02))
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer), "max_position_embeddings": 64, "encoder_hidden_size": VISION["hidden_size"],
        "bos_token_id": None, "eos_token_id": None, "sep_token_id": None,
    }  # fmt: skip
    text = BlipTextModel(BlipTextConfig(**TEXT, **settings, is_decoder=True), add_pooling_layer=False)
    return nn.ModuleDict({"vision": vision, "text": text, "head": linear_head(TEXT["hidden_size"])})


def pretrained_clip(pool: DistortedScenes, tokenizer: Any, state: Path) -> Any:
    """A CLIP model that matches scenes and captions; among a batch's captions is a wrong one for every scene."""
    model, heads, truth = build_clip(tokenizer), naming_heads(96), targets(pool.scenes)

    def loss(step: int) -> Tensor:
        rows = draws(step, len(pool), BATCH, seed=21)
        right, wrong = captions_of([pool.scenes[row] for row in rows.tolist()], step, count=1)
        captions = list(dict.fromkeys(right + wrong))
        number = {caption: place for place, caption in enumerate(captions)}
        target = torch.tensor([number[caption] for caption in right])
        texts = functional.normalize(
            model.get_text_features(**encoded(tokenizer, captions)).pooler_output.float(), dim=-1
        )
        seen = model.get_image_features(pixel_values=renormalised(pool.pixels(rows, step))).pooler_output.float()
        logits = clamped_scale(model) * functional.normalize(seen, dim=-1) @ texts.T
        # Scenes of one caption are all right for it.
        same = functional.one_hot(target, len(captions)).float()[:, target].T
        matching = functional.cross_entropy(logits, target) + functional.cross_entropy(
            logits[:, target].T, same / same.sum(-1, keepdim=True)
        )
        answers = {name: head(seen) for name, head in heads.items()}
        return 0.5 * matching + NAMING * property_loss(answers, {name: value[rows] for name, value in truth.items()})

    fit("clip", nn.ModuleDict({"clip": model, "heads": heads}), loss, CONTRASTIVE, state)
    return model


def pretrained_blip(pool: DistortedScenes, tokenizer: Any, state: Path) -> nn.ModuleDict:
    """A BLIP (``vision``, ``text``, ``head``) that rewards a scene's caption above captions wrong in one thing."""
    modules, heads, truth = build_blip(tokenizer), naming_heads(VISION["hidden_size"]), targets(pool.scenes)
    reward = blip_reward(modules, tokenizer)

    def loss(step: int) -> Tensor:
        rows = draws(step, len(pool), BATCH // 2, seed=22)
        right, wrong = captions_of([pool.scenes[row] for row in rows.tolist()], step, count=WRONG_CAPTIONS)
        pixels = renormalised(pool.pixels(rows, step))
        rewards = reward(pixels, right + wrong).view(1 + WRONG_CAPTIONS, -1)
        matching = functional.cross_entropy(rewards.T, torch.zeros(len(rows), dtype=torch.long))
        seen = modules["vision"](pixel_values=pixels).last_hidden_state[:, 0].float()
        answers = {name: head(seen) for name, head in heads.items()}
        return matching + NAMING * property_loss(answers, {name: value[rows] for name, value in truth.items()})

    fit("blip", nn.ModuleDict({"blip": modules, "heads": heads}), loss, MATCHING, state)
    return modules


def renormalised(pixels: Tensor) -> Tensor:
    """Images in [-1, 1], (B, 3, 64, 64), as the scorers see them: normalised with CLIP's mean and deviation."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return ((pixels + 1) / 2 - mean) / std
