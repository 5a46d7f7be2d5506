"""The denoiser and the text encoder of the tiny pipeline, pre-trained together on captioned scenes.

Some captions are wrong, as on the web, so that there is something to align.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench.models.forward_process import build_forward_process
from bench.tiny.building.fitting import FitSettings, draws, fit
from bench.tiny.building.latents import SHARD, VARIANTS, Shards
from bench.tiny.building.tokenizer import write_clip_tokenizer

SETTINGS = FitSettings(steps=24_000, learning_rate=1e-3, average=0.9995, warmup=300, decay=0.25)
BATCH = 64
EMPTY_CAPTIONS = 0.1
FIRST_SHARDS, MOST_SHARDS, STEPS_PER_SHARD = 3, 32, 250
"""Training starts on a few shards of scenes, and one is added now and then, so that it can start at once."""
WIDTH = 128
WIDTHS = (48, 96, 192)

# Velocity: place and size are decided at high noise, where the loss of an epsilon network hardly sees them.
#
# On 16x16 latents the background colour survives more noise than on 64x64 ones: with SD's own beta_end of 0.012 it is still
# visible at the last timestep, and a sample's colour would follow its initial noise instead of its caption.
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build_text_encoder(tokenizer: Any) -> Any:
    """A new two-layer `CLIPTextModel` for the world's vocabulary."""
    torch.manual_seed(1)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> Any:
    """A new `UNet2DConditionModel` for 16x16x4 latents, with cross-attention at 8x8 and 4x4."""
    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # diffusers takes it as the number of heads
        norm_num_groups=16,
    )


def train_denoiser(vae: Any, state: Path, latents_folder: Path) -> StableDiffusionPipeline:
    """Fit the denoiser and its text encoder on the latents of scenes; returns the whole pipeline.

    Args:
        vae: the autoencoder.
        state: where unfinished training is kept.
        latents_folder: where the latents of this autoencoder are kept.
    """
    tokenizer_folder = state / "tokenizer"
    write_clip_tokenizer(tokenizer_folder)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    text_encoder, unet, process = build_text_encoder(tokenizer), build_unet(), build_forward_process(SCHEDULER)
    shards = Shards(vae, tokenizer, latents_folder)
    blank = torch.tensor(tokenizer([""], padding="max_length")["input_ids"])[0]

    def loss(step: int) -> Tensor:
        latents, ids = shards.take(draws(step, scenes_at(step), BATCH, seed=2), draws(step, VARIANTS, BATCH, seed=3))
        noise_source = torch.Generator().manual_seed(step)
        noise = torch.randn(latents.shape, generator=noise_source)
        t = process.timesteps(torch.rand(BATCH, generator=noise_source))
        dropped = torch.rand(BATCH, generator=noise_source) < EMPTY_CAPTIONS
        states = text_encoder(torch.where(dropped[:, None], blank, ids)).last_hidden_state
        predicted = unet(process.add_noise(latents, noise, t), t, states).sample
        return nn.functional.mse_loss(predicted.float(), process.target(latents, noise, t))

    fit("denoiser", nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}), loss, SETTINGS, state)
    return assemble(vae, text_encoder, tokenizer, unet)


def scenes_at(step: int) -> int:
    """How many scenes a training step draws from."""
    return SHARD * min(MOST_SHARDS, FIRST_SHARDS + step // STEPS_PER_SHARD)


def assemble(vae: Any, text_encoder: Any, tokenizer: Any, unet: Any) -> StableDiffusionPipeline:
    """An ordinary pipeline of the four parts."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
