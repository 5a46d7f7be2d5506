"""What the families of diffusers pipelines share: lazy components, latents of an autoencoder, weights on disk."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.chunks import CHUNK, images_per_chunk
from bench.core.errors import UserError
from bench.core.files import read_json, write_json
from bench.core.values import digest
from bench.models.checkpoints.adapters import join_adapters, save_adapters
from bench.models.checkpoints.blueprint import Blueprint
from bench.models.checkpoints.compatibility import loaded_files
from bench.models.checkpoints.component import CONFIG, place_digest
from bench.models.checkpoints.pipeline_folder import PipelineFolder, explained
from bench.models.checkpoints.trained import read_trained
from bench.models.families.tokens import check_tokens, tokenizer_name
from bench.models.family import ModelFamily, Posterior
from bench.models.forward_process import ForwardProcess, build_forward_process, shift_exponent
from bench.models.frozen import unchanged
from bench.models.guidance import fused

DECODED_TOGETHER = 1 << 20
"""Pixels decoded at once: an autoencoder in float32 needs 3 GiB for them, and the denoiser is on the same GPU."""


class DiffusersFamily(ModelFamily):
    """A model in the layout of one diffusers pipeline class.

    Attributes:
        pipeline_class: name of that class.
        network_name: the component that is trained, ``unet`` or ``transformer``.
        encoder_names: the text encoders; each has a tokenizer of the same number.
        patch: side of the squares of latents that the denoiser merges into one token.
        options: names of the flags in the pipeline's configuration that decide what `encode_negative` returns.
        classes: by component, a class that only this family loads: installed code is trusted, and a folder just names it.
    """

    pipeline_class: ClassVar[str]
    network_name: ClassVar[str]
    encoder_names: ClassVar[Sequence[str]]
    patch: ClassVar[int] = 1
    options: ClassVar[Sequence[str]] = ()
    classes: ClassVar[Mapping[str, type]] = {}

    def __init__(self, folder: PipelineFolder, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._started: str | None = None
        self._start: nn.Module | None = None  # the weights of `start_from`, until the network goes to the device

    @classmethod
    def load(cls, source: str, *, device: torch.device) -> Self:
        return cls(PipelineFolder(source, cls.pipeline_class, cls._parts(), cls.classes), device)

    @classmethod
    def unweighted(cls, source: str, *, device: torch.device) -> Self:
        return cls(Blueprint(source, cls.pipeline_class, cls._parts(), cls.classes), device)

    @classmethod
    def _parts(cls) -> list[str]:
        tokenizers = [tokenizer_name(name) for name in cls.encoder_names]
        return ["scheduler", "vae", cls.network_name, *cls.encoder_names, *tokenizers]

    @property
    def encoders(self) -> dict[str, nn.Module]:
        return {"vae": self._vae, **{name: encoder for name, (_, encoder) in self._encoders.items()}}

    @functools.cached_property
    def network(self) -> nn.Module:
        return self._loaded(unchanged)

    def change_network(self, change: Callable[[nn.Module], object]) -> nn.Module:
        if "network" in vars(self):
            return super().change_network(change)
        self.network = self._loaded(change)
        return self.network

    def _loaded(self, change: Callable[[nn.Module], object]) -> nn.Module:
        """The weights that `network` is to have, changed in main memory, on the device."""
        network = self._read() if self._start is None else self._start
        change(network)
        placed = self._placed(network)
        self._start = None
        return placed

    def _copied(self) -> nn.Module:
        """A denoiser with the weights of `network`, which need not be loaded for it; in main memory, or where `network` is."""
        if "network" in vars(self):
            return copy.deepcopy(self.network)
        return self._read() if self._start is None else copy.deepcopy(self._start)

    def _read(self) -> nn.Module:
        """The pipeline's denoiser in float32, in main memory, or without values if the model has none."""
        where = self._device if self._device.type == "meta" else torch.device("cpu")
        network: nn.Module = self._folder.load_model(self.network_name, where)
        return network

    def _placed(self, network: nn.Module) -> nn.Module:
        """The network on the device, with channels-last convolution weights on CUDA, whose kernels are faster with them."""
        layout = torch.channels_last if self._device.type == "cuda" else torch.preserve_format
        return network.to(self._device).to(memory_format=layout)  # type: ignore[call-overload,no-any-return]

    @functools.cached_property
    def network_config(self) -> Mapping[str, Any]:
        """The denoiser's configuration."""
        return self._folder.config(self.network_name)

    @functools.cached_property
    def process(self) -> ForwardProcess:
        with explained(self._folder.path / "scheduler"):
            return self.process_of(self.scheduler_config)

    def process_of(self, scheduler: Mapping[str, Any]) -> ForwardProcess:
        return build_forward_process(scheduler, self._tokens(self.latent_shape(self.resolution, self.resolution)))

    @functools.cached_property
    def scheduler_config(self) -> Mapping[str, Any]:
        return dict(self._folder.load_part("scheduler").config)

    @property
    def digest(self) -> str:
        return self._started or self._folder.digest(self.network_name)

    @property
    def encoders_digest(self) -> str:
        return digest({part: self._folder.digest(part) for part in ("vae", *self._present_encoders)})

    @property
    def parts(self) -> Mapping[str, str]:
        network = self._started or self._folder.network_digest(self.network_name)
        scheduler = self._folder.texts_digest("scheduler")
        return {"scheduler": scheduler, self.network_name: network, **self.encoding_parts}

    @functools.cached_property
    def encoding_parts(self) -> Mapping[str, str]:
        networks = {name: self._folder.network_digest(name) for name in ("vae", *self._present_encoders)}
        tokenizers = map(tokenizer_name, self._present_encoders)
        options = {name: self._folder.option(name, default=True) for name in self.options}
        return {
            **networks,
            **{name: self._folder.texts_digest(name) for name in tokenizers},
            **({"model_index.json": digest(options)} if options else {}),
        }

    def with_parts_of(self, pipeline: Path) -> Self:
        return type(self)(self._folder.with_parts_of(pipeline), self._device)

    @property
    def resolution(self) -> int:
        return self._folder.number(self.network_name, "sample_size") * self._scale

    @functools.cached_property
    def _vae(self) -> Any:
        # Always in float32: SDXL's autoencoder overflows in half precision.
        vae = self._folder.load_model("vae", self._device)
        if getattr(vae.config, "latents_mean", None) is not None:
            raise UserError(f"{self._folder.path}: autoencoders with latents_mean are not supported; use another model")
        return vae

    @functools.cached_property
    def _vae_config(self) -> Mapping[str, Any]:
        return self._folder.config("vae")

    @property
    def _scale(self) -> int:
        widths = self._vae_config.get("block_out_channels")
        if not isinstance(widths, list | tuple) or not 0 < len(widths) < 16:
            raise UserError(
                f"{self._folder.path / 'vae'}: block_out_channels is {str(widths)[:40]}, not a list of widths"
            )
        return 1 << (len(widths) - 1)

    @property
    def size_unit(self) -> int:
        return self._scale * self.patch

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        unit = self.size_unit
        if height % unit or width % unit:
            raise UserError(
                f"this model cannot generate images of {height}x{width} pixels: "
                f"height and width must be multiples of {unit} for this model"
            )
        return (self._folder.number("vae", "latent_channels"), height // self._scale, width // self._scale)

    def _tokens(self, shape: Sequence[int]) -> int:
        """Number of image tokens of the denoiser for latents of ``shape`` (C, h, w)."""
        return (shape[-2] // self.patch) * (shape[-1] // self.patch)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Posterior:
        batches = pixels.split(images_per_chunk(*pixels.shape[-2:]))
        found = [self._vae.encode(batch.to(self._vae.device)).latent_dist for batch in batches]
        mean, deviation = torch.cat([each.mean for each in found]), torch.cat([each.std for each in found])
        factor: float = self._vae.config.scaling_factor
        return Posterior((mean - self._latent_shift) * factor, deviation * factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        pixels = latents.shape[-2] * latents.shape[-1] * self._scale**2
        pieces = latents.split(max(1, min(CHUNK, DECODED_TOGETHER // pixels)))
        return np.concatenate([self._decode_together(piece) for piece in pieces])

    def _decode_together(self, latents: Tensor) -> NDArray[np.uint8]:
        pixels = ((self._decoded(latents) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        array: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
        return array

    def decode_pixels(self, latents: Tensor) -> Tensor:
        return ((self._decoded(latents) + 1) / 2).clamp(0, 1)

    def _decoded(self, latents: Tensor) -> Tensor:
        """Images in [-1, 1] or a little beyond, float32, (B, 3, H, W)."""
        decoded: Tensor = self._vae.decode(
            latents.float() / self._vae.config.scaling_factor + self._latent_shift
        ).sample
        return decoded.float()

    @property
    def _latent_shift(self) -> float:
        return float(self._vae.config.shift_factor or 0)

    @functools.cached_property
    def _encoders(self) -> dict[str, tuple[Any, Any]]:
        """Tokenizer and network of the text encoders, by the network's name; an optional one may be absent."""
        return {name: self._encoder(name) for name in self._present_encoders}

    def _encoder(self, name: str) -> tuple[Any, Any]:
        tokenizer, encoder = self._tokenizers[tokenizer_name(name)], self._folder.load_model(name, self._device)
        check_tokens(tokenizer, encoder, self._folder.path / tokenizer_name(name))
        return tokenizer, encoder

    @functools.cached_property
    def _tokenizers(self) -> dict[str, Any]:
        return {name: self._folder.load_part(name) for name in map(tokenizer_name, self._present_encoders)}

    def tokens(self, prompts: Sequence[str]) -> Mapping[str, list[list[int]]]:
        found = {name: each(list(prompts), truncation=True)["input_ids"] for name, each in self._tokenizers.items()}
        return {name: [list(map(int, ids)) for ids in rows] for name, rows in found.items()}

    @property
    def _present_encoders(self) -> list[str]:
        return [name for name in self.encoder_names if self._needs(name) or self._folder.holds(name)]

    def _needs(self, encoder: str) -> bool:
        """Whether the text encoder cannot be left out of the pipeline."""
        return True

    def set_timesteps(self, scheduler: Any, steps: int, shape: Sequence[int]) -> None:
        dynamic = scheduler.config.get("use_dynamic_shifting")
        scheduler.set_timesteps(
            steps, **({"mu": shift_exponent(scheduler.config, self._tokens(shape))} if dynamic else {})
        )

    def release_encoders(self) -> None:
        for part in ("_vae", "_encoders"):
            self.__dict__.pop(part, None)

    def save_trained(self, network: Any, folder: Path) -> None:
        network.to(memory_format=torch.contiguous_format)  # safetensors saves only contiguous tensors
        if getattr(network, "peft_config", None):
            save_adapters(network, folder, self.network_name)
        else:
            network.save_pretrained(folder, safe_serialization=True)
            config = read_json(folder / CONFIG)
            config.pop("_name_or_path", None)  # where the network was loaded from on this machine
            write_json(folder / CONFIG, config)

    def join_trained(self, folders: Sequence[Path], output: Path) -> None:
        join_adapters(folders, output)

    def load_trained(self, folder: Path) -> nn.Module:
        return self._placed(self._trained(folder))

    def load_changed(self, folder: Path | None, change: Callable[[nn.Module], object]) -> nn.Module:
        network = self._copied() if folder is None else self._trained(folder)
        change(network)
        return self._placed(network)

    def _trained(self, folder: Path) -> nn.Module:
        """What `load_trained` loads, in main memory, or where `network` is."""
        kind = self._folder.component_class(self.network_name)
        return read_trained(folder, kind, self.network_name, self._copied)

    def start_from(self, folder: Path) -> None:
        network: Any = self._trained(folder)
        started = place_digest(loaded_files(folder))
        if getattr(network, "peft_config", None):
            started = started if self._started is None else digest([self._started, started])
        self._started, self._start = started, fused(network)
        vars(self).pop("network", None)
