"""Pipelines with random weights in the real architecture of each model family, as small as possible, built in code."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from bench.tiny.building.tokenizer import caption_words, write_clip_tokenizer

SIDE = 16
SD_SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def write_sd15(folder: Path, **scheduler: Any) -> None:
    """SD 1.x, or 2.x with ``prediction_type="v_prediction"``: images of 16x16 pixels, latents of 4x8x8."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder)
    StableDiffusionPipeline(
        vae=autoencoder(4), text_encoder=CLIPTextModel(clip_config(tokenizer, 16)), tokenizer=tokenizer,
        unet=UNet2DConditionModel(**unet_sizes(), cross_attention_dim=16),
        scheduler=DDIMScheduler(**SD_SCHEDULER, clip_sample=False, set_alpha_to_one=False, **scheduler),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)  # fmt: skip


def write_sdxl(folder: Path, **scheduler: Any) -> None:
    """SDXL: two text encoders of different width, pooled embeddings and time ids."""
    write_sdxl_with(folder, EulerDiscreteScheduler(**SD_SCHEDULER, timestep_spacing="leading", **scheduler))


def write_sdxl_flow(folder: Path, **scheduler: Any) -> None:
    """SDXL that was trained on as a flow, with the scheduler by which diffusers' own pipeline samples such a UNet."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 2.0, "steps_offset": 1}
    write_sdxl_with(folder, UniPCMultistepScheduler(**{**flow, **scheduler}))


def write_sdxl_with(folder: Path, scheduler: Any) -> None:
    """SDXL with a scheduler of diffusers."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder)
    unet = UNet2DConditionModel(
        **unet_sizes(), cross_attention_dim=16 + 24, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8, transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
    )  # fmt: skip
    StableDiffusionXLPipeline(
        vae=autoencoder(4, scaling_factor=0.13025, force_upcast=True),
        text_encoder=CLIPTextModel(clip_config(tokenizer, 16)), tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, 24)), tokenizer_2=tokenizer,
        unet=unet, scheduler=scheduler,
    ).save_pretrained(folder, safe_serialization=True)  # fmt: skip


def write_sd3(folder: Path, **scheduler: Any) -> None:
    """SD3: three text encoders, flow; with the joint attention and query norms of SD3.5."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder)
    long_tokenizer = t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=SIDE // 2, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=48, caption_projection_dim=32, pooled_projection_dim=16 + 24,
        pos_embed_max_size=24, qk_norm="rms_norm", dual_attention_layers=(0,),
    )  # fmt: skip
    StableDiffusion3Pipeline(
        vae=autoencoder(4, scaling_factor=1.5305, shift_factor=0.0609), transformer=transformer,
        text_encoder=CLIPTextModelWithProjection(clip_config(tokenizer, 16)), tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, 24)), tokenizer_2=tokenizer,
        text_encoder_3=t5_encoder(long_tokenizer, 48), tokenizer_3=long_tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
    ).save_pretrained(folder, safe_serialization=True)  # fmt: skip


def write_flux(folder: Path, *, guidance_embeds: bool = True, **scheduler: Any) -> None:
    """FLUX.1: packed latents, CLIP's pooled and T5's states, guidance as an input, a shift that depends on the resolution."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder)
    long_tokenizer = t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, pooled_projection_dim=16, guidance_embeds=guidance_embeds, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    FluxPipeline(
        vae=autoencoder(4, scaling_factor=0.3611, shift_factor=0.1159), transformer=transformer,
        text_encoder=CLIPTextModel(clip_config(tokenizer, 16)), tokenizer=tokenizer,
        text_encoder_2=t5_encoder(long_tokenizer, 24), tokenizer_2=long_tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, "use_dynamic_shifting": True, **scheduler}),
    ).save_pretrained(folder, safe_serialization=True)  # fmt: skip


WRITERS: dict[str, Callable[..., None]] = {
    "sd15": write_sd15,
    "sdxl": write_sdxl,
    "sdxl-flow": write_sdxl_flow,
    "sd3": write_sd3,
    "flux": write_flux,
}


def autoencoder(channels: int, **config: Any) -> AutoencoderKL:
    """An autoencoder that halves height and width."""
    return AutoencoderKL(
        sample_size=SIDE, latent_channels=channels, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **config,
    )  # fmt: skip


def unet_sizes() -> dict[str, Any]:
    """Settings shared by the UNets of SD and SDXL."""
    return {
        "sample_size": SIDE // 2, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 32),
        "layers_per_block": 1, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (2, 2), "norm_num_groups": 4,
    }  # fmt: skip


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tiny world's CLIP tokenizer."""
    write_clip_tokenizer(folder / "tokenizer-files")
    return CLIPTokenizer.from_pretrained(folder / "tokenizer-files")


def clip_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    """A text tower of two layers."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, projection_dim=width,
    )  # fmt: skip


def t5_tokenizer() -> T5TokenizerFast:
    """A unigram tokenizer with the captions' words and single letters."""
    words = [f"▁{word}" for word in caption_words()]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -5.0)]
    pieces += [(word, -3.0) for word in words] + [(letter, -8.0) for letter in string.ascii_lowercase]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


def t5_encoder(tokenizer: T5TokenizerFast, width: int) -> T5EncoderModel:
    """A T5 encoder of one layer."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )  # fmt: skip
