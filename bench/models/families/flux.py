"""FLUX.1: a flow transformer on packed latents, with guidance distilled into an input, conditioned on CLIP and T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.models.families.diffusers_family import DiffusersFamily
from bench.models.families.tokens import token_ids
from bench.models.forward_process import FLOW_SCHEDULER, shift_exponent
from bench.records.protocol import GenerationSettings

T5_TOKENS = 512
TRAINING_GUIDANCE = 3.5
"""The guidance input of FLUX.1-dev in training, where no protocol states one; the published default."""


class Flux(DiffusersFamily):
    """A diffusers ``FluxPipeline``: FLUX.1-dev (guidance is an input) or FLUX.1-schnell (there is none)."""

    pipeline_class = "FluxPipeline"
    network_name = "transformer"
    encoder_names = ("text_encoder", "text_encoder_2")
    patch = 2
    recipe = "flux"
    lora_targets: ClassVar[Sequence[str]] = (
        "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0",
        "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out",
    )  # fmt: skip
    condition_names = ("prompt_embeds", "pooled")
    classifier_free = False

    @property
    def generation(self) -> GenerationSettings:
        side, scale = self.resolution, TRAINING_GUIDANCE if self._guided else 1.0
        return GenerationSettings(scheduler=FLOW_SCHEDULER, steps=28, guidance_scale=scale, height=side, width=side)

    @property
    def resolution(self) -> int:
        return self._folder.number(
            "vae", "sample_size"
        )  # the transformer takes any size and its configuration states none

    @property
    def _guided(self) -> bool:
        guided: bool = self.network_config["guidance_embeds"]
        return guided

    def check(self, settings: GenerationSettings) -> None:
        super().check(settings)
        if settings.guidance_scale != 1 and not self._guided:
            raise UserError(
                f"guidance_scale={settings.guidance_scale:g} has no effect on {self._folder.path}, "
                "which was distilled without guidance; give --guidance-scale 1, or --set guidance_scale=1 for the images "
                "that training samples"
            )

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        clip_tokenizer, clip = self._encoders["text_encoder"]
        t5_tokenizer, t5 = self._encoders["text_encoder_2"]
        pooled = clip(token_ids(clip_tokenizer, prompts, clip_tokenizer.model_max_length, clip.device)).pooler_output
        states = t5(token_ids(t5_tokenizer, prompts, T5_TOKENS, t5.device))[0]
        return {"prompt_embeds": states.float(), "pooled": pooled.float()}

    def set_timesteps(self, scheduler: Any, steps: int, shape: Sequence[int]) -> None:
        sigmas = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(sigmas=sigmas, mu=shift_exponent(scheduler.config, self._tokens(shape)))

    def predict(self, network: nn.Module, latents: Tensor, times: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        size, states = latents.shape[-2:], condition["prompt_embeds"]
        scale = condition.get("guidance", torch.full_like(times, TRAINING_GUIDANCE, dtype=torch.float32))
        prediction: Tensor = network(
            hidden_states=pack(latents),
            timestep=times / 1000,
            guidance=scale if self._guided else None,
            pooled_projections=condition["pooled"],
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, device=latents.device),
            img_ids=positions(size).to(latents.device),
        ).sample
        return unpack(prediction, size)


def pack(latents: Tensor) -> Tensor:
    """Squares of 2x2 latents as tokens, row by row: (B, C, h, w) to (B, h/2 * w/2, 4C)."""
    batch, channels, height, width = latents.shape
    squares = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * 4)


def unpack(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """The inverse of `pack`, for latents of ``size`` (h, w)."""
    batch, _, width = tokens.shape
    squares = tokens.reshape(batch, size[0] // 2, size[1] // 2, width // 4, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(batch, width // 4, size[0], size[1])


def positions(size: Sequence[int]) -> Tensor:
    """The position of each token of latents of ``size`` (h, w): (0, row, column); float32, (h/2 * w/2, 3)."""
    rows, columns = torch.arange(size[0] // 2), torch.arange(size[1] // 2)
    return torch.cartesian_prod(torch.zeros(1), rows.float(), columns.float())
