"""The denoiser and the text encoder of the tiny pipeline, pre-trained together on captioned scenes.

Some captions are wrong, as on the web, so that there is something to align.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench.models.forward_process import build_forward_process
from bench.tiny import world
from bench.tiny.building.autoencoder import encode
from bench.tiny.building.fitting import FitSettings, draws, fit
from bench.tiny.building.scenes import Pool
from bench.tiny.building.tokenizer import write_clip_tokenizer

SETTINGS = FitSettings(steps=2500, learning_rate=1.5e-3, average=0.999, warmup=200)
BATCH = 128
WRONG_CAPTIONS = 0.15
EMPTY_CAPTIONS = 0.1
LATE_TIMES = 0.7
"""An exponent below 1: noisier timesteps, where object and colour are decided, are trained more often."""
WIDTH = 128

# On 16x16 latents the background colour survives more noise than on 64x64 ones: with SD's own beta_end of 0.012 it is still
# visible at the last timestep, and a sample's colour would follow its initial noise instead of its caption.
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
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
    """A new `UNet2DConditionModel` for 16x16x4 latents."""
    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=(4, 4),
        norm_num_groups=16,
    )


def web_caption(request: world.Request, rng: np.random.Generator) -> str:
    """A caption as pre-training sees it: mostly right, sometimes wrong, sometimes empty."""
    chance = rng.uniform()
    if chance < EMPTY_CAPTIONS:
        return ""
    if chance < EMPTY_CAPTIONS + (1 - EMPTY_CAPTIONS) * WRONG_CAPTIONS:
        return world.corrupt_request(rng, request).caption
    return request.caption


def train_denoiser(vae: Any, pool: Pool, work: Path) -> StableDiffusionPipeline:
    """Fit the denoiser and its text encoder on the pool's latents; returns the whole pipeline.

    A scene keeps its wrong caption throughout, since a wrong caption on the web does not correct itself.
    """
    tokenizer_folder = work / "tokenizer"
    write_clip_tokenizer(tokenizer_folder)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    text_encoder, unet, process = build_text_encoder(tokenizer), build_unet(), build_forward_process(SCHEDULER)
    captions = [web_caption(request, np.random.default_rng((17, row))) for row, request in enumerate(pool.requests)]
    tokens = torch.tensor(tokenizer(captions, padding="max_length", truncation=True)["input_ids"])
    blank = torch.tensor(tokenizer([""], padding="max_length")["input_ids"])[0]
    latents = _latents(vae, pool, work) * vae.config.scaling_factor

    def loss(step: int) -> Tensor:
        rows = draws(step, len(pool), BATCH, seed=2)
        noise_source = torch.Generator().manual_seed(step)
        noise = torch.randn(BATCH, *latents.shape[1:], generator=noise_source)
        t = process.timesteps(torch.rand(BATCH, generator=noise_source) ** LATE_TIMES)
        dropped = torch.rand(BATCH, generator=noise_source) < EMPTY_CAPTIONS
        ids = torch.where(dropped[:, None], blank, tokens[rows])
        predicted = unet(process.add_noise(latents[rows], noise, t), t, text_encoder(ids).last_hidden_state).sample
        return nn.functional.mse_loss(predicted.float(), noise)

    fit("denoiser", nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}), loss, SETTINGS, work)
    return assemble(vae, text_encoder, tokenizer, unet)


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


def _latents(vae: Any, pool: Pool, work: Path) -> Tensor:
    path = work / "latents.npy"
    if not path.exists():
        np.save(path, encode(vae, pool, range(len(pool))).numpy())
    return torch.from_numpy(np.load(path))
