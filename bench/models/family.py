"""The interface of a model family, the same for UNets and transformers, epsilon, v and flow."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.models.forward_process import ForwardProcess, build_forward_process
from bench.models.framing import Framing
from bench.records.protocol import GenerationSettings

Condition = Mapping[str, Tensor]
"""What the network is conditioned on: named tensors, float32, each with a leading batch axis."""


class Posterior(NamedTuple):
    """An autoencoder's posterior of some pictures, a diagonal Gaussian over latents scaled as the denoiser expects them.

    Attributes:
        mean: float32, (..., C, h, w).
        deviation: standard deviation of every element, same shape; 0 for an autoencoder without one.
    """

    mean: Tensor
    deviation: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """Latents for standard normal noise of the same shape."""
        return self.mean + self.deviation * noise


class ModelFamily(abc.ABC):
    """A text-to-image diffusion model whose parts are loaded when they are first used.

    A family is registered under the entry-point group ``bench.families``, by the name of the diffusers pipeline it loads.

    Attributes:
        recipe: the name under which algorithms keep recipes for models of this family that are not registered.
        lora_targets: names of the network's layers that get adapters.
        condition_names: names of the tensors that `encode_text` returns.
        classifier_free: whether guidance compares with a second, negative prediction; if not, its scale is an input.
    """

    recipe: ClassVar[str]
    lora_targets: ClassVar[Sequence[str]]
    condition_names: ClassVar[Sequence[str]]
    classifier_free: ClassVar[bool] = True

    @classmethod
    @abc.abstractmethod
    def load(cls, source: str, *, device: torch.device) -> Self:
        """A model from a diffusers folder or hub id, in float32.

        Raises:
            UserError: the folder is missing or of another family; an incomplete one is noticed when a part is used.
        """

    @classmethod
    def unweighted(cls, source: str, *, device: torch.device) -> Self:
        """A model of the same architecture with random weights, of which only configurations are read; for plans and profiles.

        Raises:
            UserError: the family has none.
        """
        raise UserError(f"models of the family {cls.__name__} cannot be planned, since it has no random weights")

    @property
    def encoders(self) -> Mapping[str, nn.Module]:
        """The networks that make latents and embeddings, by name; they are loaded by this."""
        return {}

    @property
    @abc.abstractmethod
    def network(self) -> nn.Module:
        """The denoiser; the only part that is ever trained."""

    @property
    @abc.abstractmethod
    def process(self) -> ForwardProcess:
        """Its forward process, at its resolution."""

    def process_of(self, scheduler: Mapping[str, Any]) -> ForwardProcess:
        """The forward process of a diffusers scheduler's configuration, at the model's resolution.

        Raises:
            UserError: it describes none that is known here.
        """
        return build_forward_process(scheduler)

    @property
    @abc.abstractmethod
    def scheduler_config(self) -> Mapping[str, Any]:
        """The configuration of its diffusers scheduler."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """SHA-256 of the denoiser's weights, of `start_from` where that was called, shortened to 16 hex digits."""

    @property
    @abc.abstractmethod
    def encoders_digest(self) -> str:
        """SHA-256 of the weights that make latents and embeddings, shortened to 12 hex digits."""

    @property
    def parts(self) -> Mapping[str, str]:
        """Digests by component of every file on disk that decides training or images, configurations and tokenizers too."""
        return {"denoiser": self.digest, "encoders": self.encoders_digest}

    @property
    def encoding_parts(self) -> Mapping[str, str]:
        """Those of `parts` that decide latents and embeddings, by which they are cached."""
        return {"encoders": self.encoders_digest}

    @property
    @abc.abstractmethod
    def generation(self) -> GenerationSettings:
        """How images are made by a model of this family that nothing else is known of."""

    @property
    @abc.abstractmethod
    def resolution(self) -> int:
        """Side of its training pictures in pixels."""

    @property
    @abc.abstractmethod
    def size_unit(self) -> int:
        """What height and width of its pictures are multiples of, in pixels."""

    @abc.abstractmethod
    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one picture's latents.

        Raises:
            UserError: the model cannot make pictures of this size.
        """

    def check(self, settings: GenerationSettings) -> None:
        """Raise a `UserError` when the model cannot make images in this way."""
        self.latent_shape(settings.height, settings.width)

    @abc.abstractmethod
    def encode_images(self, pixels: Tensor) -> Posterior:
        """Posterior of pictures: float32 in [-1, 1], (B, 3, H, W) to float32 (B, C, h, w), scaled as the denoiser expects."""

    @abc.abstractmethod
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Pictures of latents: (B, C, h, w) to uint8 (B, H, W, 3)."""

    @abc.abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings of prompts by name, as the denoiser takes them; float32, (len(prompts), ...) each."""

    def encode_negative(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The same for the negative prompts of guidance."""
        return self.encode_text(prompts)

    def picture_condition(self, framing: Framing) -> dict[str, Tensor]:
        """Conditioning on a picture's size and crop by name, float32, without a batch axis; most models have none."""
        return {}

    @abc.abstractmethod
    def release_encoders(self) -> None:
        """Give back the memory of all parts but the denoiser; they are loaded again when they are used."""

    def set_timesteps(self, scheduler: Any, steps: int, shape: Sequence[int]) -> None:
        """Set a diffusers scheduler's ``steps`` sampling times, in place.

        Args:
            shape: of one picture's latents, (C, h, w); flows whose shift depends on the resolution derive ``mu``, a number, from it.
        """
        scheduler.set_timesteps(steps)

    @abc.abstractmethod
    def predict(self, network: nn.Module, latents: Tensor, times: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The raw prediction of ``network``.

        Args:
            latents: noisy latents, (B, C, h, w).
            times: (B,), as the model's diffusers scheduler counts them, see `bench.ForwardProcess.network_times`.
            condition: what `encode_text` and `picture_condition` return, with a leading axis of B; where guidance is an input,
                its scale ``guidance``.

        Returns:
            A tensor of the shape of ``latents``, in the dtype that the network computes in; bfloat16 under autocast to it.
        """

    @abc.abstractmethod
    def save_trained(self, network: nn.Module, folder: Path) -> None:
        """Write a trained denoiser, or its adapters, so that diffusers loads it."""

    @abc.abstractmethod
    def load_trained(self, folder: Path) -> nn.Module:
        """Read what `save_trained` wrote, or others released in one file or a folder, for sampling.

        Raises:
            UserError: the weights are missing, cut short, or of another architecture.
        """

    @abc.abstractmethod
    def start_from(self, folder: Path) -> None:
        """Make such weights the model's own denoiser, adapters merged into it, so that training starts there."""
