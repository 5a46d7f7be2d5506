"""The interface of a model family, the same for UNets and transformers, epsilon, v and flow."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.process import Process


class ModelFamily(abc.ABC):
    """A loaded text-to-image diffusion model.

    Attributes:
        network: the denoiser; the only part that is ever trained.
        process: its forward process.
        scheduler_config: the configuration of its diffusers scheduler.
        digest: SHA-256 of the denoiser's weights file, shortened to 16 hex digits.
        lora_targets: names of the network's layers that get adapters.
    """

    network: nn.Module
    process: Process
    scheduler_config: Mapping[str, Any]
    digest: str
    lora_targets: Sequence[str]

    @classmethod
    @abc.abstractmethod
    def load(cls, source: str, *, device: torch.device) -> Self:
        """Load from a diffusers folder or hub id, in float32.

        Raises:
            UserError: the folder is missing, incomplete, or of another family.
        """

    @property
    @abc.abstractmethod
    def resolution(self) -> int:
        """Side of its pictures in pixels."""

    @abc.abstractmethod
    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one picture's latents."""

    @abc.abstractmethod
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Latents of pictures: float32 in [-1, 1], (B, 3, H, W) to float32 (B, C, h, w), scaled as the denoiser expects."""

    @abc.abstractmethod
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Pictures of latents: (B, C, h, w) to uint8 (B, H, W, 3)."""

    @abc.abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the denoiser is conditioned on; each value has a leading axis of ``len(prompts)``."""

    @abc.abstractmethod
    def predict(
        self, network: nn.Module, latents: Tensor, timesteps: Tensor, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """The raw prediction of ``network``: latents (B, ...), int64 times (B,), condition, to (B, ...)."""

    @abc.abstractmethod
    def save_trained(self, network: nn.Module, folder: Path) -> None:
        """Write a trained denoiser, or its adapters, so that diffusers loads it."""

    @abc.abstractmethod
    def load_trained(self, folder: Path) -> nn.Module:
        """Read what `save_trained` wrote, for sampling."""
