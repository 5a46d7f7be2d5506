"""The tiny world as a flow model: a small Stable Diffusion 3 on the latents and captions of the tiny denoiser.

It has the autoencoder of the base model, two CLIP text encoders (the first begins as the base model's) and no T5.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from bench.models.families.stable_diffusion_3 import T5_TOKENS
from bench.models.forward_process import build_forward_process
from bench.tiny.building.denoiser import BATCH, EMPTY_CAPTIONS, LAYOUT, scenes_at
from bench.tiny.building.fitting import FitSettings, draws, fit
from bench.tiny.building.latents import VARIANTS, Shards
from bench.tiny.building.layout_heads import LAYOUT_VALUES

HEADS, HEAD_WIDTH, LAYERS = 5, 32, 6
SHIFT = 2.0
"""Shifts the schedule towards high noise, where object, place and size are decided."""
SETTINGS = FitSettings(steps=12_000, learning_rate=1e-3, average=0.999, warmup=200, decay=0.5)


def build_transformer(text_width: int) -> Any:
    """A new `SD3Transformer2DModel` for 16x16x4 latents and two text encoders of one width."""
    torch.manual_seed(3)
    width = HEADS * HEAD_WIDTH
    return SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=LAYERS, attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS, joint_attention_dim=2 * text_width, caption_projection_dim=width,
        pooled_projection_dim=2 * text_width, pos_embed_max_size=8,
    )  # fmt: skip


def build_text_encoders(base: Any) -> tuple[Any, Any]:
    """Two text encoders in the shape of the base model's, of which the first begins with its weights."""
    torch.manual_seed(4)
    config = CLIPTextConfig(**{**base.config.to_dict(), "projection_dim": base.config.hidden_size})
    first, second = CLIPTextModelWithProjection(config), CLIPTextModelWithProjection(config)
    first.text_model.load_state_dict(
        getattr(base, "text_model", base).state_dict()
    )  # transformers 5 has it without the wrapper
    return first, second


def assemble(vae: Any, text_encoders: tuple[Any, Any], tokenizer: Any, transformer: Any) -> StableDiffusion3Pipeline:
    """An ordinary pipeline of the parts, without T5."""
    vae.register_to_config(shift_factor=0.0)  # which the pipeline subtracts
    return StableDiffusion3Pipeline(
        vae=vae, transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        text_encoder=text_encoders[0], tokenizer=tokenizer, text_encoder_2=text_encoders[1], tokenizer_2=tokenizer,
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip


def train_flow(pipeline: StableDiffusion3Pipeline, state: Path, latents_folder: Path) -> None:
    """Fit a pipeline's transformer and text encoders, in place, on the latents of scenes.

    Args:
        pipeline: of `assemble`, in float32.
        state: where unfinished training is kept.
        latents_folder: where the latents of this autoencoder are kept.
    """
    transformer, tokenizer = pipeline.transformer, pipeline.tokenizer
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
    process = build_forward_process(dict(pipeline.scheduler.config))
    shards = Shards(pipeline.vae, tokenizer, latents_folder)
    blank = torch.tensor(tokenizer([""], padding="max_length")["input_ids"])[0]
    heads = BlockHeads(transformer)

    def loss(step: int) -> Tensor:
        rows, variants = draws(step, scenes_at(step), BATCH, seed=5), draws(step, VARIANTS, BATCH, seed=6)
        latents, ids, layouts = shards.take(rows, variants)
        noise_source = torch.Generator().manual_seed(step)
        noise = torch.randn(latents.shape, generator=noise_source)
        t = process.timesteps(torch.rand(BATCH, generator=noise_source))
        dropped = torch.rand(BATCH, generator=noise_source) < EMPTY_CAPTIONS
        states, pooled = encode(encoders, torch.where(dropped[:, None], blank, ids))
        noised, times = process.add_noise(latents, noise, t), process.network_times(t)
        predicted = transformer(noised, timestep=times, encoder_hidden_states=states, pooled_projections=pooled).sample
        return nn.functional.mse_loss(predicted, process.target(latents, noise, t)) + LAYOUT * heads.loss(layouts)

    modules = nn.ModuleDict({"transformer": transformer, "one": encoders[0], "two": encoders[1], "heads": heads})
    with one_zero_token(transformer):
        fit("flow", modules, loss, SETTINGS, state)
    heads.remove()


def encode(encoders: tuple[Any, Any], ids: Tensor) -> tuple[Tensor, Tensor]:
    """What the pipeline makes of token ids (B, length), with a single zero token in T5's place.

    Returns:
        States (B, length + 1, 2 widths) and the pooled vector (B, 2 widths).
    """
    outputs = [encoder(ids, output_hidden_states=True) for encoder in encoders]
    states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return functional.pad(states, (0, 0, 0, 1)), torch.cat([output.text_embeds for output in outputs], dim=-1)


class _CountedLast:
    """Joint attention whose last text token stands for many equal ones: as a key, it weighs as much as all of them."""

    def __init__(self, count: int) -> None:
        self._bonus = math.log(count)

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_unused: Any
    ) -> tuple[Tensor, Tensor]:
        places, text_places = hidden_states.shape[1], encoder_hidden_states.shape[1]
        query, key, value = (
            torch.cat([image(hidden_states), text(encoder_hidden_states)], dim=1).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for image, text in ((attn.to_q, attn.add_q_proj), (attn.to_k, attn.add_k_proj), (attn.to_v, attn.add_v_proj))
        )  # fmt: skip
        bonus = functional.pad(torch.full((1,), self._bonus), (places + text_places - 1, 0))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bonus.expand(len(bonus), -1))
        image, text = mixed.transpose(1, 2).flatten(2).split([places, text_places], dim=1)
        return attn.to_out[0](image), text if attn.context_pre_only else attn.to_add_out(text)


@contextlib.contextmanager
def one_zero_token(transformer: Any) -> Iterator[None]:
    """Inside the block one zero token at the end of the text stands for the 256 that the pipeline puts in T5's place.

    They have no position, so they stay equal to each other in every layer, and attention to all of them is attention to one with
    256 times the weight.  Training with one is exact and three times as fast.
    """
    transformer.set_attn_processor(_CountedLast(T5_TOKENS))
    yield
    transformer.set_attn_processor(JointAttnProcessor2_0())


class BlockHeads(nn.Module):
    """Linear heads on a transformer's blocks, as `bench.tiny.building.layout_heads.LayoutHeads`; a patch knows where it is.

    Args:
        transformer: a `SD3Transformer2DModel`; hooks remain on it until `remove`.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        blocks = transformer.transformer_blocks
        self.layouts = nn.ModuleList(nn.Linear(transformer.inner_dim, LAYOUT_VALUES) for _ in blocks)
        self._after: list[Tensor] = []
        self._hooks = [
            transformer.register_forward_pre_hook(lambda *_: self._after.clear()),
            *(block.register_forward_hook(lambda *call: self._after.append(call[2][1])) for block in blocks),
        ]

    def loss(self, layouts: Tensor) -> Tensor:
        """Mean squared error of the heads about the transformer's latest call; ``layouts`` are float32 (B, LAYOUT_VALUES)."""
        return torch.stack(
            [
                (head(features.mean(dim=1)) - layouts).square().mean()
                for head, features in zip(self.layouts, self._after, strict=True)
            ]
        ).mean()

    def remove(self) -> None:
        """Take the hooks off the transformer."""
        for hook in self._hooks:
            hook.remove()
