"""R-precision and recall@k: does an image find its own prompt among the evaluation prompts?

R-precision with one relevant text, Xu et al., AttnGAN, 2018, arXiv:1711.10485, there with 99 other texts; with CLIP instead of its
text and image encoders, Park et al., Benchmark for Compositional Text-to-Image Synthesis, NeurIPS 2021.  Recall is computed by
the package clip-benchmark, https://github.com/LAION-AI/CLIP_benchmark: the mean over the images of one pool is its
``text_retrieval_recall@k``.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor

from bench import MetricInfo, UserError, batch_slices, digest, require
from metrics.clip import ClipEmbeddings
from metrics.inference import BATCH, exact_inference

POOL = 100
"""Number of texts that an image's own prompt competes with, itself included; fewer only if there are fewer prompts.

A smaller pool is easier.
"""


class Retrieval(ClipEmbeddings):
    """1 if an image's own prompt is among its `cutoff` nearest prompts in its pool, else 0.

    The pool depends only on the prompts, so every image has its own score and models are compared image by image.  Pools are
    consecutive slices of the distinct prompts, ordered by hash; the last is filled up from the first.  Prompts with the same
    tokens count as one.

    Takes the same checkpoints as ``clip``.
    """

    cutoff: ClassVar[int]
    continuous: ClassVar[bool] = False
    rows: Mapping[str, int] = {}
    """Row of each prompt among the texts; prompts with the same tokens share one."""

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        """See `Metric.load`; raises a `UserError` if clip-benchmark is not installed."""
        _package()
        return super().load(checkpoint, device=device)

    def for_prompts(self, prompts: Sequence[str]) -> Self:
        """See `Metric.for_prompts`.

        Raises:
            UserError: there are so few distinct prompts that every image would find its own.
        """
        distinct = sorted(set(prompts), key=lambda prompt: hashlib.sha256(prompt.encode()).digest())
        tokens = [tuple(ids) for ids in self.tokenize(distinct).tolist()]
        texts = {ids: row for row, ids in enumerate(dict.fromkeys(tokens))}
        if len(texts) <= self.cutoff:
            raise UserError(
                f"{self.info.title} among {len(texts)} different prompts is always 1; use more than {self.cutoff}"
            )
        bound = copy.copy(self)
        vars(bound).pop("_texts", None)  # of the prompts that it was bound to before
        bound.rows = {prompt: texts[ids] for prompt, ids in zip(distinct, tokens, strict=True)}
        return bound

    def identity(self) -> dict[str, Any]:
        """See `Metric`."""
        pool = {"size": min(POOL, len(set(self.rows.values()))), "prompts": digest(list(self.rows))}
        return {**super().identity(), "cutoff": self.cutoff, "pool": pool}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """See `Metric`; 0 or 1.

        Raises:
            ValueError: `for_prompts` was not called with one of the prompts.
        """
        if unknown := set(prompts) - self.rows.keys():
            raise ValueError(f"for_prompts was not called with {min(unknown)!r}")
        rows = torch.tensor([self.rows[prompt] for prompt in prompts], dtype=torch.long)
        scores = torch.empty(len(images))
        with exact_inference(self.device):
            for piece in batch_slices(len(images), BATCH):
                pools = pool_members(rows[piece], len(self._texts))
                nearness = torch.einsum("nd,nsd->ns", self.image_embeddings(images[piece]).cpu(), self._texts[pools])
                own = pools == rows[piece, None]
                scores[piece] = (_package().recall_at_k(nearness, own, self.cutoff) > 0).float()
        return scores

    @functools.cached_property
    def _texts(self) -> Tensor:
        """Embeddings of the prompts with distinct tokens, float32, (P, D), on the CPU."""
        by_row = {row: prompt for prompt, row in self.rows.items()}
        texts = [by_row[row] for row in range(len(by_row))]
        with exact_inference(self.device):
            return torch.cat([self.text_embeddings(texts[piece]).cpu() for piece in batch_slices(len(texts), BATCH)])


class RPrecision(Retrieval):
    """The image's own prompt comes first."""

    cutoff: ClassVar[int] = 1
    info: ClassVar[MetricInfo] = MetricInfo(
        title="R-precision",
        raw_range="0 or 1",
        unit="hit: own prompt comes first",
        display_factor=100.0,
        published="1 by chance among 100; depends on the CLIP model and on how similar the prompts are, so compare only under the same signature",
        conventions="mean in %, among 100 prompts (or all if there are fewer); numbers from another pool size are not comparable",
        source="arXiv:1711.10485 with CLIP ViT-L/14, computed by https://github.com/LAION-AI/CLIP_benchmark",
    )


class RecallAt5(Retrieval):
    """The image's own prompt is among the first five."""

    cutoff: ClassVar[int] = 5
    info: ClassVar[MetricInfo] = MetricInfo(
        title="recall@5",
        raw_range="0 or 1",
        unit="hit: own prompt in the first 5",
        display_factor=100.0,
        published="5 by chance among 100; depends on the CLIP model and on how similar the prompts are, so compare only under the same signature",
        conventions="mean in %, among 100 prompts (or all if there are fewer); numbers from another pool size are not comparable",
        source="arXiv:1711.10485 with CLIP ViT-L/14, computed by https://github.com/LAION-AI/CLIP_benchmark",
    )


def pool_members(rows: Tensor, count: int) -> Tensor:
    """Rows of each text's pool, int64, (N, `POOL`), or (N, count) if fewer, for rows, int64, (N,), of ``count`` texts."""
    size = min(POOL, count)
    return (rows[:, None] // size * size + torch.arange(size)) % count


def _package() -> Any:
    # This module of the package needs only torch and tqdm, not the open_clip and torchvision that are installed with it.
    return require("clip_benchmark.metrics.zeroshot_retrieval", "recall", extra="retrieval")
