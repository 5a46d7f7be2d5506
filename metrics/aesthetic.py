"""LAION's aesthetic predictor, version 2 ("sac+logos+ava1"): a linear head on the image embedding of CLIP ViT-L/14.

Schuhmann et al., LAION-5B, 2022, arXiv:2210.08402; code
https://github.com/christophschuhmann/improved-aesthetic-predictor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from bench import FittableMetric, MetricInfo
from metrics.checkpoints import build, checkpoint_digest, fill, find_weights, read_json, read_tensors
from metrics.cosine import CLIP_CONFIGURATION, CLIP_WEIGHTS
from metrics.head import LinearHead
from metrics.inference import exact_arithmetic, exact_inference, preprocessed_batches, refuse_other_count
from metrics.preprocessing import OpenAIPreprocessing, Preprocessing


class Aesthetic(FittableMetric):
    """The head's value on the normalised image embedding; the prompt is ignored.

    A checkpoint is the head's ``.pth`` file, a folder or a hub id that holds it under one of its two published names, or one
    that holds a single ``.pth`` file.  A folder ``clip`` beside the head holds the image tower with its projection in the layout of
    transformers; the default is OpenAI's ViT-L/14.

    Args:
        tower: a `transformers.CLIPVisionModelWithProjection`.
        head: a `LinearHead`.
        preprocessing: maps images to pixels.
        device: device to compute on.
        weights: digest of the checkpoint's files, for the record.
    """

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Aesthetic",
        raw_range="-13 to 23",
        unit="rating from 1 to 10",
        conventions="reported unscaled; some preprocess as transformers does, which moves the crop by at most one pixel",
        published="real images 4.5 to 7, SD1.5 5.2 to 5.8, SDXL 5.9 to 6.4",
        source="arXiv:2210.08402, https://github.com/christophschuhmann/improved-aesthetic-predictor",
    )
    reads_prompt: ClassVar[bool] = False
    head_parameters: ClassVar[tuple[str, ...]] = ("head.",)
    version: ClassVar[str] = "v2 sac+logos+ava1"
    files: ClassVar[tuple[str, ...]] = ("sac+logos+ava1-l14-linearMSE.pth", "aesthetic-model.pth", "*.pth")
    """The authors' name, that of the same file on the hub, and any; other heads of the authors have the same layout."""
    published: ClassVar[str] = "trl-lib/ddpo-aesthetic-predictor"
    published_clip: ClassVar[str] = "openai/clip-vit-large-patch14"

    def __init__(
        self, tower: Any, head: LinearHead, preprocessing: Preprocessing, *, device: torch.device, weights: str
    ) -> None:
        self.tower = tower.eval().requires_grad_(False).to(device)
        self.head = head.eval().requires_grad_(False).to(device)
        self.preprocessing, self.device, self.weights = preprocessing, device, weights

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        """See `Metric.load`."""
        path = find_weights(checkpoint or cls.published, cls.files, ("clip/*",))
        beside = path.parent / "clip"
        tower, tower_files = load_tower(str(beside) if beside.is_dir() else cls.published_clip)
        head = LinearHead(tower.config.projection_dim)
        fill(head, read_tensors(path), path)
        preprocessing = OpenAIPreprocessing(tower.config.image_size)
        return cls(tower, head, preprocessing, device=device, weights=checkpoint_digest(path, *tower_files))

    @property
    def network(self) -> nn.Module:
        """See `FittableMetric`; the tower and the head under these names."""
        return nn.ModuleDict({"tower": self.tower, "head": self.head})

    def inputs(self, images: Sequence[Image.Image]) -> Tensor:
        """See `FittableMetric`."""
        return self.preprocessing.batch(images).to(self.device)

    def rate(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """See `FittableMetric`."""
        refuse_other_count(inputs, prompts)
        with exact_arithmetic(self.device):
            return self._ratings(inputs)

    def identity(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"version": self.version, "weights": self.weights, "preprocessing": self.preprocessing.identity()}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """See `Metric`."""
        refuse_other_count(images, prompts)
        scores = torch.empty(len(images))
        with exact_inference(self.device):
            for piece, pixels in preprocessed_batches(self.preprocessing, images, self.device):
                scores[piece] = self._ratings(pixels).cpu()
        return scores

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """See `DifferentiableMetric`."""
        refuse_other_count(pixels, prompts)
        with exact_arithmetic(self.device):
            return self._ratings(self.preprocessing.pixels(pixels))

    def _ratings(self, pixels: Tensor) -> Tensor:
        """Ratings, (N,), of preprocessed pixels."""
        ratings: Tensor = self.head(normalize(self.tower(pixel_values=pixels).image_embeds, dim=-1))
        return ratings[:, 0]


def load_tower(checkpoint: str) -> tuple[Any, tuple[Path, Path]]:
    """The image tower of a CLIP checkpoint in the layout of transformers, and its weights and configuration files.

    The checkpoint may hold the complete CLIP model or only the image tower.

    Raises:
        UserError: a file is missing or has a different layout.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    path = find_weights(checkpoint, CLIP_WEIGHTS, (CLIP_CONFIGURATION,))
    configuration = path.parent / CLIP_CONFIGURATION
    settings = read_json(configuration)
    # In the configuration of a complete CLIP model, both towers share the projection width, which is at the top level.
    shared = {name: settings[name] for name in ("projection_dim",) if name in settings}
    vision = settings.get("vision_config", settings) | shared
    tower = build(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(vision)), path)
    fill(tower, read_tensors(path), path, ignored=("text_model.", "text_projection.", "logit_scale"))
    return tower, (path, configuration)
