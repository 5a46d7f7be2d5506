"""The rewards that votes train, one per architecture, computed as the published scorers compute their scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import BertTokenizer

from bench.tiny.building.tokenizer import CONTEXT_LENGTH

Reward = Callable[[Tensor, Sequence[str]], Tensor]
"""Normalised pixels (B, 3, 64, 64) and captions to rewards of shape (B,), whose difference is a preference's logit."""


def clip_reward(model: Any, tokenizer: Any) -> Reward:
    """exp(logit_scale) times the cosine."""

    def reward(pixels: Tensor, captions: Sequence[str]) -> Tensor:
        texts = model.get_text_features(**encoded(tokenizer, captions)).pooler_output.float()
        scenes = model.get_image_features(pixel_values=pixels).pooler_output.float()
        return clamped_scale(model) * functional.cosine_similarity(scenes, texts)

    return reward


def aesthetic_reward(tower: Any, head: nn.Module) -> Reward:
    """The head on the normalised embedding; captions are ignored."""

    def reward(pixels: Tensor, captions: Sequence[str]) -> Tensor:
        del captions
        value: Tensor = head(functional.normalize(tower(pixel_values=pixels).image_embeds.float(), dim=-1))
        return value[:, 0].float()

    return reward


def blip_reward(modules: nn.ModuleDict, tokenizer: Any) -> Reward:
    """The head on the first token, which attends to the image; there may be k times as many captions as images."""

    def reward(pixels: Tensor, captions: Sequence[str]) -> Tensor:
        seen = modules["vision"](pixel_values=pixels).last_hidden_state.repeat(len(captions) // len(pixels), 1, 1)
        inputs = encoded(tokenizer, captions)
        read = modules["text"](**inputs, encoder_hidden_states=seen, is_decoder=False).last_hidden_state
        value: Tensor = modules["head"](read[:, 0])
        return value[:, 0].float()

    return reward


def linear_head(width: int) -> nn.Sequential:
    """The published head, linear layers at positions 0, 2, 4, 6, 7, without its dropouts; initial outputs are of order 1."""
    widths = (width, 1024, 128, 64, 16, 1)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(
        layers[0], nn.Identity(), layers[1], nn.Identity(), layers[2], nn.Identity(), layers[3], layers[4]
    )


def blip_tokenizer(folder: Path) -> Any:
    """BERT's tokenizer with BLIP's two extra tokens, which count towards the vocabulary."""
    tokenizer: Any = BertTokenizer.from_pretrained(str(folder))
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    return tokenizer


def encoded(tokenizer: Any, captions: Sequence[str]) -> dict[str, Tensor]:
    """Token ids and mask, padded to the longest caption."""
    read = tokenizer(list(captions), padding=True, truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt")
    return {"input_ids": read.input_ids, "attention_mask": read.attention_mask}


def clamped_scale(model: Any) -> Tensor:
    """exp(logit_scale), at most 100 as in CLIP."""
    scale: Tensor = model.logit_scale.exp().clamp(max=100)
    return scale
