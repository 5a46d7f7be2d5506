"""Denoisers for captions of the data, with the guidance of an algorithm that samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bench.models.family import Condition, ModelFamily
from bench.models.sampling import size_and_guidance
from bench.rollouts.sampler import Denoise, Predict, guided


class EncodedTexts(Protocol):
    """The part of `bench.data.cache.EncodedData` that rollouts need; all tensors are float32."""

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings of captions, each (B, ...)."""

    def negative(self, count: int) -> dict[str, Tensor]:
        """Embeddings of an empty negative prompt, each (``count``, ...)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prompting:
    """Makes denoisers for captions, at the model's own resolution.

    Attributes:
        model: the model.
        encoded: embeddings of the captions.
        scale: guidance scale: of classifier-free guidance, or an input of the network.
        device: where latents are.
    """

    model: ModelFamily
    encoded: EncodedTexts
    scale: float
    device: torch.device

    def guide(self, captions: Sequence[str]) -> Callable[[Predict], Denoise]:
        """Makes the denoiser of a network for some captions."""
        model, side = self.model, self.model.resolution
        settings = model.generation.model_copy(update={"height": side, "width": side, "guidance_scale": self.scale})

        def conditioning(embeddings: Mapping[str, Tensor]) -> Condition:
            own = {name: value.to(self.device) for name, value in embeddings.items()}
            return {**own, **size_and_guidance(model, settings, own)}

        condition = conditioning(self.encoded.condition(captions))
        second = self.scale if model.classifier_free else 1.0
        negative = condition if second == 1 else conditioning(self.encoded.negative(len(captions)))
        return lambda predict: guided(predict, condition, negative, second)
