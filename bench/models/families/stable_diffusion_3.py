"""Stable Diffusion 3 and 3.5: a flow transformer conditioned on two CLIP text encoders and T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.core.errors import UserError
from bench.models.families.diffusers_family import DiffusersFamily
from bench.models.families.tokens import token_ids
from bench.models.forward_process import FLOW_SCHEDULER
from bench.records.protocol import GenerationSettings

T5_TOKENS = 256


class StableDiffusion3(DiffusersFamily):
    """A diffusers ``StableDiffusion3Pipeline``, with T5 or without; Esser et al. 2024, arXiv 2403.03206."""

    pipeline_class = "StableDiffusion3Pipeline"
    network_name = "transformer"
    encoder_names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    patch = 2
    recipe = "sd3"
    lora_targets: ClassVar[Sequence[str]] = (
        "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0",
        "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out",
    )  # fmt: skip
    condition_names = ("prompt_embeds", "pooled")

    @property
    def generation(self) -> GenerationSettings:
        side = self.resolution
        return GenerationSettings(scheduler=FLOW_SCHEDULER, steps=28, guidance_scale=7.0, height=side, width=side)

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        most = self.network_config["pos_embed_max_size"] * self.size_unit
        if max(height, width) > most:
            raise UserError(
                f"this model cannot generate images of {height}x{width} pixels: it has positions for up to {most} pixels per side"
            )
        return super().latent_shape(height, width)

    def _needs(self, encoder: str) -> bool:
        return encoder != "text_encoder_3"

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        clip = ("text_encoder", "text_encoder_2")
        length = self._encoders[clip[0]][0].model_max_length
        states, pooled = [], []
        for tokenizer, encoder in (self._encoders[name] for name in clip):
            output = encoder(token_ids(tokenizer, prompts, length, encoder.device), output_hidden_states=True)
            states.append(output.hidden_states[-2])
            pooled.append(output[0])
        joined = torch.cat(states, dim=-1)
        long = self._encode_t5(prompts)
        joined = functional.pad(joined, (0, long.shape[-1] - joined.shape[-1]))
        return {
            "prompt_embeds": torch.cat([joined, long.to(joined)], dim=1).float(),
            "pooled": torch.cat(pooled, dim=-1).float(),
        }

    def _encode_t5(self, prompts: Sequence[str]) -> Tensor:
        """T5's states, (B, 256, D); zeros when the pipeline was saved without it, as in the model's training."""
        if "text_encoder_3" not in self._encoders:
            return torch.zeros(len(prompts), T5_TOKENS, self.network_config["joint_attention_dim"])
        tokenizer, encoder = self._encoders["text_encoder_3"]
        states: Tensor = encoder(token_ids(tokenizer, prompts, T5_TOKENS, encoder.device))[0]
        return states

    def predict(self, network: nn.Module, latents: Tensor, times: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        prediction: Tensor = network(
            latents, timestep=times, encoder_hidden_states=condition["prompt_embeds"],
            pooled_projections=condition["pooled"],
        ).sample  # fmt: skip
        return prediction
