"""ImageReward: BLIP with cross-attention and a reward head, trained on expert rankings.

Xu et al., ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation, 2023, arXiv:2304.05977;
code https://github.com/THUDM/ImageReward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor, nn

from bench import FittableMetric, MetricInfo
from metrics.checkpoints import (
    Source,
    build,
    checkpoint_digest,
    fill,
    find_weights,
    load_tokenizer,
    read_json,
    read_tensors,
    tokenizer_files,
)
from metrics.head import LinearHead
from metrics.inference import exact_arithmetic, exact_inference, preprocessed_batches, refuse_other_count
from metrics.preprocessing import OpenAIPreprocessing, Preprocessing

CONFIGURATIONS = ("med_config.json", "vision_config.json")
"""Of the text tower and of the image tower."""
BERT_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "vocab_size": 30524,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
VIT_L_16: dict[str, Any] = {"image_size": 224, "patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16}

NO_TOKENS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "sep_token_id": None, "pad_token_id": 0}
"""The network uses only the padding token of the configuration's special tokens."""

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Mean and standard deviation of the raw reward on the authors' validation data; part of the score's definition."""

PROMPT_LENGTH = 35

_VISION_NAMES = {
    "vision.embeddings.class_embedding": "blip.visual_encoder.cls_token",
    "vision.embeddings.position_embedding": "blip.visual_encoder.pos_embed",
    "vision.embeddings.patch_embedding.": "blip.visual_encoder.patch_embed.proj.",
    "vision.encoder.layers.": "blip.visual_encoder.blocks.",
    "vision.post_layernorm.": "blip.visual_encoder.norm.",
    ".layer_norm1.": ".norm1.",
    ".layer_norm2.": ".norm2.",
    ".self_attn.qkv.": ".attn.qkv.",
    ".self_attn.projection.": ".attn.proj.",
}

TokenizeMasked = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Prompts to token ids and attention mask, both int64 of shape (N, `PROMPT_LENGTH`)."""


class RewardNetwork(nn.Module):
    """Image tower, text tower with cross-attention to the image, and reward head.

    Args:
        vision: architecture of the image tower, in timm's terms (see `VIT_L_16`).
        text: architecture of the text tower, as in ``med_config.json`` (see `BERT_BASE`).
    """

    def __init__(self, vision: dict[str, Any], text: dict[str, Any]) -> None:
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        super().__init__()
        self.vision: Any = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=vision["embed_dim"],
                intermediate_size=4 * vision["embed_dim"],
                num_hidden_layers=vision["depth"],
                num_attention_heads=vision["num_heads"],
                image_size=vision["image_size"],
                patch_size=vision["patch_size"],
                layer_norm_eps=1e-6,
            )
        )
        # is_decoder adds cross-attention to the image; attention over the text itself is bidirectional, see forward.
        known = {name: text[name] for name in BERT_BASE}
        self.text: Any = BlipTextModel(
            BlipTextConfig(**known, **NO_TOKENS, encoder_hidden_size=vision["embed_dim"], is_decoder=True),
            add_pooling_layer=False,
        )
        self.mlp = LinearHead(text["hidden_size"])

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Rewards before normalisation, (N,), of pixels (N, 3, S, S) with token ids and mask (N, L)."""
        # Not the pooler_output, to which transformers applies the final norm a second time.
        seen = self.vision(pixel_values=pixels).last_hidden_state
        read = self.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False)
        rewards: Tensor = self.mlp(read.last_hidden_state[:, 0])[:, 0]
        return rewards


class ImageReward(FittableMetric):
    """The head's reward, normalised to mean 0 and standard deviation 1 on the authors' validation data.

    A checkpoint is a weights file, a folder that holds ``ImageReward.pt``, or a hub id.  Optional files beside
    it: ``med_config.json`` and ``vision_config.json`` (the defaults are BERT-base and ViT-L/16) and ``vocab.txt`` (the
    default is bert-base-uncased's).

    Args:
        network: the network.
        tokenize: prompts to token ids and mask.
        preprocessing: maps images to pixels.
        device: device to compute on.
        weights: digest of the checkpoint's files, for the record.
    """

    info: ClassVar[MetricInfo] = MetricInfo(
        title="ImageReward",
        raw_range="about -3 to 3",
        unit="standard deviations of the reward",
        published="SD1.5 -0.1 to 0.2 and up to 1.35 after alignment, SDXL 0.5 to 1.3",
        conventions="reported unscaled: normalised to mean 0 and standard deviation 1 on the authors' data",
        source="arXiv:2304.05977, https://github.com/THUDM/ImageReward",
        ties="disagree",
    )
    head_parameters: ClassVar[tuple[str, ...]] = ("mlp.",)
    version: ClassVar[str] = "v1.0"
    published: ClassVar[str] = "THUDM/ImageReward"
    published_tokenizer: ClassVar[str] = "bert-base-uncased"

    def __init__(
        self,
        network: RewardNetwork,
        tokenize: TokenizeMasked,
        preprocessing: Preprocessing,
        *,
        device: torch.device,
        weights: str,
    ) -> None:
        self._network = network.eval().requires_grad_(False).to(device)
        self.tokenize, self.preprocessing, self.device, self.weights = tokenize, preprocessing, device, weights

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        """See `Metric.load`."""
        from transformers import BertTokenizer

        companions = [*CONFIGURATIONS, *tokenizer_files(BertTokenizer)]
        path = find_weights(checkpoint or cls.published, ("ImageReward.pt",), companions)
        med_config, vision_config = (path.parent / name for name in CONFIGURATIONS)
        text = BERT_BASE | read_json(med_config, BERT_BASE)
        vision = VIT_L_16 | read_json(vision_config, VIT_L_16)
        network = build(lambda: RewardNetwork(vision, text), path)
        # BLIP's own projections, which the reward does not use, are in the published file.
        fill(network, read_tensors(path), path, blip_source, ignored=("blip.vision_proj.", "blip.text_proj."))
        # The network also knows the two tokens that masked_ids adds.
        tokenizer = load_tokenizer(
            BertTokenizer, path.parent, cls.published_tokenizer, vocabulary=text["vocab_size"] - 2
        )
        return cls(
            network,
            masked_ids(tokenizer),
            OpenAIPreprocessing(vision["image_size"]),
            device=device,
            weights=checkpoint_digest(path, med_config, vision_config, tokenizer=tokenizer),
        )

    @property
    def network(self) -> nn.Module:
        """See `FittableMetric`."""
        return self._network

    def inputs(self, images: Sequence[Image.Image]) -> Tensor:
        """See `FittableMetric`."""
        return self.preprocessing.batch(images).to(self.device)

    def rate(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """See `FittableMetric`."""
        refuse_other_count(inputs, prompts)
        with exact_arithmetic(self.device):
            return self._rewards(inputs, prompts)

    def identity(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"version": self.version, "weights": self.weights, "preprocessing": self.preprocessing.identity()}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """See `Metric`."""
        refuse_other_count(images, prompts)
        scores = torch.empty(len(images))
        with exact_inference(self.device):
            for piece, pixels in preprocessed_batches(self.preprocessing, images, self.device):
                scores[piece] = self._rewards(pixels, prompts[piece]).cpu()
        return scores

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """See `DifferentiableMetric`."""
        refuse_other_count(pixels, prompts)
        with exact_arithmetic(self.device):
            return self._rewards(self.preprocessing.pixels(pixels), prompts)

    def _rewards(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Normalised rewards, (N,), of preprocessed pixels."""
        ids, mask = self.tokenize(prompts)
        rewards: Tensor = self._network(pixels, ids.to(self.device), mask.to(self.device))
        return (rewards - MEAN) / STD


def blip_source(name: str) -> Source:
    """Where the published file keeps the parameter that `RewardNetwork` calls ``name``."""
    if name.startswith("text."):
        name = f"blip.text_encoder.{name.removeprefix('text.')}"
    elif name.startswith("vision."):
        for part, official in _VISION_NAMES.items():
            name = name.replace(part, official)
    return name, lambda tensor: tensor


def masked_ids(tokenizer: Any) -> TokenizeMasked:
    """Token ids and mask, truncated and padded to `PROMPT_LENGTH`.

    As in the authors' code, the tokenizer knows BLIP's two extra tokens but never inserts them: the first token stays
    ``[CLS]``.
    """
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})

    def tokenize(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        read = tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=PROMPT_LENGTH, return_tensors="pt"
        )
        return read.input_ids, read.attention_mask

    return tokenize
