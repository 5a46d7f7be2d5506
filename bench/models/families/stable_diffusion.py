"""Stable Diffusion 1.x and 2.x: a UNet conditioned on one CLIP text encoder; the tiny model has this layout too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bench.models.families.tokens import token_ids
from bench.models.families.unet import UNetFamily
from bench.records.protocol import GenerationSettings


class StableDiffusion(UNetFamily):
    """A diffusers ``StableDiffusionPipeline`` that predicts epsilon, v or a flow."""

    pipeline_class = "StableDiffusionPipeline"
    encoder_names = ("text_encoder",)
    recipe = "sd15"
    condition_names = ("prompt_embeds",)
    sampling = GenerationSettings(scheduler="DDIMScheduler", steps=50, guidance_scale=7.5)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        tokenizer, encoder = self._encoders["text_encoder"]
        ids = token_ids(tokenizer, prompts, tokenizer.model_max_length, encoder.device)
        return {"prompt_embeds": encoder(ids).last_hidden_state.float()}

    def predict(self, network: nn.Module, latents: Tensor, times: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        prediction: Tensor = network(latents, times, condition["prompt_embeds"]).sample
        return prediction
