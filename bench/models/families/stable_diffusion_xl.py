"""Stable Diffusion XL: a UNet conditioned on two CLIP text encoders and on the size and crop of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bench.models.families.tokens import token_ids
from bench.models.families.unet import UNetFamily
from bench.models.framing import Framing
from bench.records.protocol import GenerationSettings


class StableDiffusionXL(UNetFamily):
    """A diffusers ``StableDiffusionXLPipeline`` that predicts epsilon, v or a flow; Podell et al. 2023, arXiv 2307.01952."""

    pipeline_class = "StableDiffusionXLPipeline"
    encoder_names = ("text_encoder", "text_encoder_2")
    recipe = "sdxl"
    condition_names = ("prompt_embeds", "pooled")
    options = ("force_zeros_for_empty_prompt",)
    sampling = GenerationSettings(scheduler="EulerDiscreteScheduler", steps=50, guidance_scale=5.0)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        states, pooled = [], []
        for tokenizer, encoder in self._encoders.values():
            ids = token_ids(tokenizer, prompts, tokenizer.model_max_length, encoder.device)
            output = encoder(ids, output_hidden_states=True)
            states.append(output.hidden_states[-2])
            pooled.append(output[0])
        return {"prompt_embeds": torch.cat(states, dim=-1).float(), "pooled": pooled[-1].float()}

    def encode_negative(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """As `encode_text`, but an empty negative prompt is all zeros if the pipeline's configuration says so, as SDXL's does."""
        encoded = self.encode_text(prompts)
        if self._folder.option("force_zeros_for_empty_prompt", default=True):
            for value in encoded.values():
                value[[row for row, prompt in enumerate(prompts) if not prompt]] = 0
        return encoded

    def picture_condition(self, framing: Framing) -> dict[str, Tensor]:
        """The micro-conditioning: original size, corner of the crop, size of the crop; float32, (6,)."""
        sizes = (*framing.original, *framing.corner, *framing.target)
        return {"time_ids": torch.tensor(sizes, dtype=torch.float32)}

    def predict(self, network: nn.Module, latents: Tensor, times: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        added = {"text_embeds": condition["pooled"], "time_ids": condition["time_ids"]}
        prediction: Tensor = network(latents, times, condition["prompt_embeds"], added_cond_kwargs=added).sample
        return prediction
