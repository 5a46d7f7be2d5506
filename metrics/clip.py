"""CLIPScore: the cosine between the image and prompt embeddings of any CLIP model.

Hessel et al., CLIPScore: A Reference-free Evaluation Metric for Image Captioning, 2021, arXiv:2104.08718.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch

from bench import MetricInfo
from metrics.cosine import CosineMetric, CosineScore, cleaned_ids, load_clip
from metrics.preprocessing import OpenAIPreprocessing


class ClipEmbeddings(CosineMetric):
    """Any CLIP model, without a prefix before the prompt.

    A checkpoint is a folder or hub id in the layout of `transformers.CLIPModel`.  The published default is ViT-L/14.
    """

    version: ClassVar[str] = "cosine"
    published: ClassVar[str] = "openai/clip-vit-large-patch14"

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        """See `Metric.load`."""
        model, tokenizer, weights = load_clip(checkpoint or cls.published, cls.published)
        tokenize = cleaned_ids(tokenizer, model.config.text_config.max_position_embeddings)
        preprocessing = OpenAIPreprocessing(model.config.vision_config.image_size)
        return cls(model, tokenize, preprocessing, device=device, weights=weights)


class ClipScore(ClipEmbeddings, CosineScore):
    """The cosine, not clipped at 0, as in the image-reward package.

    The paper reports 2.5 * max(cosine, 0) of ViT-B/32 with a prefix, torchmetrics 100 * max(cosine, 0).
    """

    info: ClassVar[MetricInfo] = MetricInfo(
        title="CLIPScore",
        raw_range="-1 to 1",
        unit="cosine",
        display_factor=100.0,
        published="25 to 28 with ViT-L/14, 30 to 38 with ViT-H/14",
        conventions="torchmetrics: 100 * max(cosine, 0); the paper: 2.5 * max(cosine, 0) of ViT-B/32 with a prefix",
        source="arXiv:2104.08718; the variant of https://github.com/THUDM/ImageReward",
    )
