"""Images of prompts by the sampler that an algorithm trains with: its steps, rules, guidance and precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.chunks import batch_slices, images_per_chunk
from bench.core.randomness import normal
from bench.models.family import Condition, ModelFamily
from bench.rollouts.grid import evaluation_grid
from bench.rollouts.sampler import roll_out
from bench.training.online import SamplingAlgorithm
from bench.training.prompting import Prompting
from bench.training.settings import TrainingSettings


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedNow:
    """Embeddings that a model's own text encoders make when they are needed; a `bench.training.prompting.EncodedTexts`."""

    model: ModelFamily

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings of captions, each (B, ...)."""
        return self.model.encode_text(captions)

    def negative(self, count: int) -> dict[str, Tensor]:
        """Embeddings of an empty negative prompt, each (``count``, ...)."""
        return self.model.encode_negative([""] * count)


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingSampler:
    """Makes images as an algorithm that samples while it trains does, but always from the same noise.

    Attributes:
        algorithm: says how is sampled.
        settings: the precision.
        model: a model with its encoders and decoder; the network is an argument of each call.
        device: where the network is.
        seed: addresses the noise, with prompt, image and step.
    """

    algorithm: SamplingAlgorithm
    settings: TrainingSettings
    model: ModelFamily
    device: torch.device
    seed: int

    @property
    def forwards_per_image(self) -> int:
        """Forwards of the network."""
        guided = self.model.classifier_free and self.algorithm.guidance_scale > 1
        return self.algorithm.sampling_steps * (1 + guided)

    @torch.no_grad()
    def images(self, network: nn.Module, items: Sequence[tuple[str, int]]) -> NDArray[np.uint8]:
        """The images of (prompt, index), uint8, (N, H, W, 3)."""
        side = self.model.resolution
        return np.concatenate(
            [self._chunk(network, items[piece]) for piece in batch_slices(len(items), images_per_chunk(side, side))]
        )

    def record(self) -> dict[str, Any]:
        """How the images are made, as JSON values; equal rules that follow each other are told once, with their number."""
        rules: list[dict[str, Any]] = []
        for rule in self.algorithm.sampler(self.model.process):
            this = (type(rule).__name__, rule.noise)
            if rules and (rules[-1]["rule"], rules[-1]["noise"]) == this:
                rules[-1]["steps"] += 1
            else:
                rules.append({"rule": this[0], "noise": this[1], "steps": 1})
        return {
            "sampling_steps": self.algorithm.sampling_steps,
            "guidance_scale": self.algorithm.guidance_scale,
            "precision": self.settings.precision,
            "seed": self.seed,
            "rules": rules,
        }

    def _chunk(self, network: nn.Module, items: Sequence[tuple[str, int]]) -> NDArray[np.uint8]:
        algorithm, model = self.algorithm, self.model
        device, side = self.device, model.resolution
        shape = model.latent_shape(side, side)

        def noise(*purpose: str | int) -> Tensor:
            return torch.stack([normal(shape, "progress", self.seed, *item, *purpose) for item in items]).to(device)

        def predict(latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
            bf16 = self.settings.precision == "bf16"
            with torch.autocast(latents.device.type, dtype=torch.bfloat16, enabled=bf16):
                return model.predict(network, latents, model.process.network_times(times), condition)

        prompting = Prompting(model, EncodedNow(model), algorithm.guidance_scale, device)
        denoise = prompting.guide([prompt for prompt, _ in items])(predict)
        grid, rules = evaluation_grid(model, algorithm.sampling_steps), algorithm.sampler(model.process)
        level = torch.full((len(items),), grid.steps, device=device)
        ended = roll_out(denoise, grid, rules, noise("start"), level, lambda step: noise("step", step))
        return model.decode(ended.final)
