"""Diffusion models with random weights, as small as possible, saved as pipelines that the model families load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.models.checkpoints.pipeline_folder import quiet
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.families.stable_diffusion_3 import StableDiffusion3
from bench.models.family import ModelFamily
from bench.models.registry import MODELS

SIDE = 8
"""Height and width of the UNets' images, in pixels."""

SD_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}
SD_SCHEDULER: dict[str, Any] = {**SD_SCHEDULE, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


def write_micro_model(folder: Path, **scheduler: Any) -> None:
    """Save a `StableDiffusionPipeline` with random weights: images of 8x8 pixels, latents of 4x4x4.

    Args:
        scheduler: changes to the scheduler's configuration.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    tokenizer = packaged_tokenizer()
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(clip_config(tokenizer, 16))
    vae = autoencoder(SIDE)
    unet = UNet2DConditionModel(
        sample_size=SIDE // 2, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=(2, 2), norm_num_groups=4,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet,
        scheduler=DDIMScheduler(**{**SD_SCHEDULER, **scheduler}), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    _save(pipeline, folder)


def write_v_model(folder: Path) -> None:
    """The same, predicting v."""
    write_micro_model(folder, prediction_type="v_prediction")


def write_flow_model(folder: Path) -> None:
    """Save a `StableDiffusion3Pipeline` without T5, with random weights: images of 16x16 pixels, latents of 4x8x8."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    tokenizer = packaged_tokenizer()
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=SIDE, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=48, caption_projection_dim=32, pooled_projection_dim=16 + 24,
        pos_embed_max_size=24, qk_norm="rms_norm", dual_attention_layers=(0,),
    )  # fmt: skip
    pipeline = StableDiffusion3Pipeline(
        vae=autoencoder(2 * SIDE, scaling_factor=1.5305, shift_factor=0.0609), transformer=transformer,
        text_encoder=CLIPTextModelWithProjection(clip_config(tokenizer, 16)), tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, 24)), tokenizer_2=tokenizer,
        text_encoder_3=None, tokenizer_3=None, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip
    _save(pipeline, folder)


class SmallModel(NamedTuple):
    """How a small model is written, and the family that loads it."""

    write: Callable[[Path], None]
    family: type[ModelFamily]


PROCESSES: Mapping[str, SmallModel] = {
    "epsilon": SmallModel(write_micro_model, StableDiffusion),
    "v_prediction": SmallModel(write_v_model, StableDiffusion),
    "flow": SmallModel(write_flow_model, StableDiffusion3),
}
"""A small model per kind of forward process, by what its network predicts."""


def autoencoder(side: int, **config: Any) -> Any:
    """An autoencoder that halves height and width."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=side, latent_channels=4, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **config,
    )  # fmt: skip


def _save(pipeline: Any, folder: Path) -> None:
    """Save a pipeline without diffusers' warnings about the parts that it deliberately lacks."""
    from diffusers.utils import logging

    quiet()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        pipeline.save_pretrained(folder, safe_serialization=True)
    finally:
        logging.set_verbosity(verbosity)


def packaged_tokenizer() -> Any:
    """The CLIP tokenizer of the tiny model, which every installation has."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(Path(MODELS.get("tiny").source) / "tokenizer")


def clip_config(tokenizer: Any, width: int) -> Any:
    """A text tower of one layer."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, projection_dim=width,
    )  # fmt: skip
