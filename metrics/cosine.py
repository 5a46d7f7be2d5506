"""Base of scores that are the cosine between image and prompt embeddings of a CLIP model in transformers."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from bench import EmbeddingMetric, FittableMetric, UserError, batch_slices
from metrics.checkpoints import (
    build,
    checkpoint_digest,
    fill,
    find_weights,
    load_tokenizer,
    read_json,
    read_tensors,
    tokenizer_files,
)
from metrics.inference import BATCH, exact_arithmetic, exact_inference, preprocessed_batches, refuse_other_count
from metrics.preprocessing import Preprocessing

Tokenize = Callable[[Sequence[str]], Tensor]
"""Prompts to token ids, int64 of shape (N, length)."""

CLIP_CONFIGURATION = "config.json"
CLIP_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class CosineMetric(EmbeddingMetric):
    """Base of the CLIP scorers.

    Args:
        model: a `transformers.CLIPModel`.
        tokenize: prompts to token ids.
        preprocessing: maps images to pixels.
        device: device to compute on.
        weights: digest of the checkpoint's files, for the record.
    """

    version: ClassVar[str]

    def __init__(
        self, model: Any, tokenize: Tokenize, preprocessing: Preprocessing, *, device: torch.device, weights: str
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenize, self.preprocessing, self.device, self.weights = tokenize, preprocessing, device, weights

    def identity(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"version": self.version, "weights": self.weights, "preprocessing": self.preprocessing.identity()}

    @property
    def scale(self) -> float:
        """Factor on the cosine."""
        return 1.0

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """See `Metric`; every distinct prompt is encoded once."""
        refuse_other_count(images, prompts)
        distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        rows = torch.tensor([distinct[prompt] for prompt in prompts], device=self.device)
        scores = torch.empty(len(images))
        with exact_inference(self.device):
            texts = [self.text_embeddings(list(distinct)[piece]) for piece in batch_slices(len(distinct), BATCH)]
            for piece, pixels in preprocessed_batches(self.preprocessing, images, self.device):
                embedded = self.pixel_embeddings(pixels)
                scores[piece] = (self.scale * (embedded * torch.cat(texts)[rows[piece]]).sum(-1)).cpu()
        return scores

    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """See `EmbeddingMetric`."""
        with exact_inference(self.device):
            return torch.cat([self.image_embeddings(images[piece]) for piece in batch_slices(len(images), BATCH)]).cpu()

    def embed_texts(self, prompts: Sequence[str]) -> Tensor:
        """See `EmbeddingMetric`."""
        with exact_inference(self.device):
            return torch.cat(
                [self.text_embeddings(prompts[piece]) for piece in batch_slices(len(prompts), BATCH)]
            ).cpu()

    def text_embeddings(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings of unit norm, float32, (N, D)."""
        ids = self.tokenize(prompts).to(self.device)
        return normalize(self.model.get_text_features(input_ids=ids).pooler_output, dim=-1)

    def image_embeddings(self, images: Sequence[Image.Image]) -> Tensor:
        """Embeddings of unit norm, float32, (N, D)."""
        return self.pixel_embeddings(self.preprocessing.batch(images).to(self.device))

    def pixel_embeddings(self, pixels: Tensor) -> Tensor:
        """Embeddings of unit norm, float32, (N, D), of pixels, float32, (N, 3, size, size)."""
        return normalize(self.model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)


class CosineScore(CosineMetric, FittableMetric):
    """Base of those whose score is the cosine itself, times `scale`, which therefore has a gradient and can be fitted."""

    head_parameters: ClassVar[tuple[str, ...]] = ("visual_projection.", "text_projection.")

    @property
    def network(self) -> nn.Module:
        """See `FittableMetric`."""
        network: nn.Module = self.model
        return network

    def inputs(self, images: Sequence[Image.Image]) -> Tensor:
        """See `FittableMetric`."""
        return self.preprocessing.batch(images).to(self.device)

    def rate(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """See `FittableMetric`."""
        refuse_other_count(inputs, prompts)
        with exact_arithmetic(self.device):
            return self.scale * (self.pixel_embeddings(inputs) * self.text_embeddings(prompts)).sum(-1)

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """See `DifferentiableMetric`."""
        refuse_other_count(pixels, prompts)
        with exact_arithmetic(self.device):
            with torch.no_grad():
                texts = self.text_embeddings(prompts)
            embedded = self.pixel_embeddings(self.preprocessing.pixels(pixels))
            return self.scale * (embedded * texts).sum(-1)


def padded_ids(tokenizer: Any, length: int) -> Tokenize:
    """Token ids padded to ``length`` columns, so a prompt's arithmetic does not depend on the longest prompt in its batch."""

    def tokenize(prompts: Sequence[str]) -> Tensor:
        ids: Tensor = tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        return ids

    return tokenize


def clean(prompt: str) -> str:
    """A prompt cleaned as OpenAI's clip and open_clip do.

    Fixes broken encodings, resolves HTML entities (twice), collapses white space, and converts to lower case.
    """
    from ftfy import fix_text

    fixed = html.unescape(html.unescape(fix_text(prompt)))
    return " ".join(fixed.split()).lower()


def cleaned_ids(tokenizer: Any, length: int) -> Tokenize:
    """Token ids of cleaned prompts."""
    ids = padded_ids(tokenizer, length)

    def tokenize(prompts: Sequence[str]) -> Tensor:
        return ids([clean(prompt) for prompt in prompts])

    return tokenize


def load_clip(checkpoint: str, tokenizer_id: str) -> tuple[Any, Any, str]:
    """A CLIP model in the layout of transformers, its tokenizer, and the digest of their files.

    Args:
        checkpoint: a folder or a hub id.
        tokenizer_id: hub id of the tokenizer, used if the checkpoint has none.

    Raises:
        UserError: a file is missing or has a different layout.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    path = find_weights(checkpoint, CLIP_WEIGHTS, [CLIP_CONFIGURATION, *tokenizer_files(CLIPTokenizer)])
    configuration = path.parent / CLIP_CONFIGURATION
    settings = read_json(configuration)
    model = build(lambda: CLIPModel(CLIPConfig.from_dict(settings)), path)
    fill(model, read_tensors(path), path)
    text = model.config.text_config
    tokenizer = load_tokenizer(CLIPTokenizer, path.parent, tokenizer_id, vocabulary=text.vocab_size)
    # 2 marks old configurations, for which transformers pools at the highest id; any other id that differs from the
    # tokenizer's would silently pool at the first token of every prompt.
    if text.eos_token_id not in (2, tokenizer.eos_token_id):
        raise UserError(
            f"the configuration beside {path} has eos_token_id {text.eos_token_id}, but its tokenizer has "
            f"{tokenizer.eos_token_id}; make them equal"
        )
    return model, tokenizer, checkpoint_digest(path, configuration, tokenizer=tokenizer)
