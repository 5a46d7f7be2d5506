"""PickScore: CLIP ViT-H/14 trained on the choices of Pick-a-Pic users.

Kirstain et al., Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation, 2023, arXiv:2305.01569;
code https://github.com/yuvalkirstain/PickScore.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch

from bench import MetricInfo
from metrics.cosine import CosineScore, load_clip, padded_ids
from metrics.preprocessing import HuggingFacePreprocessing


class PickScore(CosineScore):
    """exp(logit_scale) times the cosine, as in the authors' README.

    Other repositories report the bare cosine (about 0.2) or the score divided by 26.

    A checkpoint is a folder or hub id in the layout of `transformers.CLIPModel`: ``config.json``, ``model.safetensors``
    and the tokenizer's files; the published checkpoint uses the tokenizer of the CLIP model it was fine-tuned from.
    """

    info: ClassVar[MetricInfo] = MetricInfo(
        title="PickScore",
        raw_range="-100 to 100",
        unit="exp(logit_scale) * cosine",
        conventions="some report the bare cosine (about 0.2, DiffusionDPO's tools) or this score / 26 (flow_grpo)",
        published="SD1.5 20.5 to 22.1, SDXL 21.7 to 23.6",
        source="arXiv:2305.01569, https://github.com/yuvalkirstain/PickScore",
        ties="threshold",
    )
    version: ClassVar[str] = "v1"
    published: ClassVar[str] = "yuvalkirstain/PickScore_v1"
    published_tokenizer: ClassVar[str] = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        """See `Metric.load`."""
        model, tokenizer, weights = load_clip(checkpoint or cls.published, cls.published_tokenizer)
        tokenize = padded_ids(tokenizer, model.config.text_config.max_position_embeddings)
        preprocessing = HuggingFacePreprocessing(model.config.vision_config.image_size)
        return cls(model, tokenize, preprocessing, device=device, weights=weights)

    @property
    def scale(self) -> float:
        """exp(logit_scale), about 100 in the published checkpoint."""
        return float(self.model.logit_scale.exp())
