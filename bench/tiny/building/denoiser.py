"""The denoiser and the text encoder of the tiny pipeline, pre-trained together on captioned scenes.

Some captions are wrong, as on the web, so that there is something to align.  Training has two phases, which differ in what the
denoiser predicts.  A third trains the result on into a model of its own, a flow.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel, UniPCMultistepScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from bench.models.forward_process import ForwardProcess, build_forward_process
from bench.tiny.building.fitting import FitSettings, draws, fit
from bench.tiny.building.latents import SHARD, VARIANTS, Shards
from bench.tiny.building.layout_heads import LayoutHeads

BATCH = 64
EMPTY_CAPTIONS = 0.1
LAYOUT = 0.3
"""Weight of the loss of `LayoutHeads`."""
FIRST_SHARDS, MOST_SHARDS, STEPS_PER_SHARD = 7, 32, 250
"""Training starts on a few shards of scenes, and one is added now and then, so that it can start at once."""
WIDTH = 128
WIDTHS = (64, 128)

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


@dataclasses.dataclass(frozen=True, slots=True)
class Phase:
    """One of the phases of training.

    Attributes:
        name: the name of its fit.
        scheduler: the class of its pipeline's scheduler.
        config: that scheduler's configuration, which says what the network predicts.
        late: exponent of the draws of times; below 1, high noise, at which object, size and place are decided, is drawn more often.
        settings: how it is fitted.
    """

    name: str
    scheduler: Any
    config: Mapping[str, Any]
    late: float
    settings: FitSettings


# Objects are learnt quickly by the epsilon loss, which weighs low noise.  Place and size are decided at high noise, which it
# hardly weighs, so training continues on velocity.
FIRST = Phase(
    name="epsilon",
    scheduler=DDIMScheduler,
    config={**SCHEDULER, "prediction_type": "epsilon"},
    late=0.7,
    settings=FitSettings(steps=5000, learning_rate=1e-3, average=0.999, warmup=200, decay=0.5),
)
SECOND = Phase(
    name="velocity",
    scheduler=DDIMScheduler,
    config={**SCHEDULER, "prediction_type": "v_prediction"},
    late=0.7,
    settings=FitSettings(steps=3000, learning_rate=8e-4, average=0.998, warmup=50, decay=0.4),
)
# The scheduler is one with which diffusers' own pipeline for UNets samples flows.  Its schedule is already shifted towards high
# noise, so ``late`` is 1.
FLOW = Phase(
    name="flow",
    scheduler=UniPCMultistepScheduler,
    config={
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 2.0,
        "steps_offset": 1,  # not read for flows, but diffusers warns where it is 0
    },
    late=1.0,
    settings=FitSettings(steps=600, learning_rate=5e-4, average=0.998, warmup=50, decay=0.6),
)


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
    """A new `UNet2DConditionModel` for 16x16x4 latents, with cross-attention at 8x8."""
    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=(4, 4),  # diffusers takes it as the number of heads
        norm_num_groups=16,
    )


def train_denoiser(phase: Phase, pipeline: StableDiffusionPipeline, state: Path, latents_folder: Path) -> None:
    """Fit a pipeline's denoiser and text encoder, in place, on the latents of scenes.

    Args:
        phase: what is predicted, and how it is fitted.
        pipeline: of `assemble`, in float32.
        state: where unfinished training is kept.
        latents_folder: where the latents of this autoencoder are kept.
    """
    unet, text_encoder = pipeline.unet, pipeline.text_encoder
    tokenizer = copy.deepcopy(pipeline.tokenizer)  # one that was used is saved with the padding of its last call
    process = build_forward_process(phase.config)
    shards = Shards(pipeline.vae, tokenizer, latents_folder)
    blank = torch.tensor(tokenizer([""], padding="max_length")["input_ids"])[0]

    heads = LayoutHeads(unet)

    def loss(step: int) -> Tensor:
        latents, ids, layouts = shards.take(
            draws(step, scenes_at(step), BATCH, seed=2), draws(step, VARIANTS, BATCH, seed=3)
        )
        noise_source = torch.Generator().manual_seed(step)
        noise = torch.randn(latents.shape, generator=noise_source)
        t = process.timesteps(torch.rand(BATCH, generator=noise_source) ** phase.late)
        dropped = torch.rand(BATCH, generator=noise_source) < EMPTY_CAPTIONS
        states = text_encoder(torch.where(dropped[:, None], blank, ids)).last_hidden_state
        return prediction_error(unet, process, latents, noise, t, states) + LAYOUT * heads.loss(layouts)

    modules = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder, "heads": heads})
    fit(phase.name, modules, loss, phase.settings, state)
    heads.remove()


def prediction_error(
    unet: nn.Module, process: ForwardProcess, latents: Tensor, noise: Tensor, t: Tensor, states: Tensor
) -> Tensor:
    """Mean squared error of what the denoiser predicts, a scalar.

    Args:
        unet: a `UNet2DConditionModel`.
        latents: clean, (B, C, h, w), as is ``noise``.
        t: training times, int64, (B,).
        states: of the captions' tokens, (B, length, width).
    """
    predicted = unet(process.add_noise(latents, noise, t), process.network_times(t), states).sample
    return nn.functional.mse_loss(predicted.float(), process.target(latents, noise, t))


def scenes_at(step: int) -> int:
    """How many scenes a training step draws from."""
    return SHARD * min(MOST_SHARDS, FIRST_SHARDS + step // STEPS_PER_SHARD)


def assemble(vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, phase: Phase) -> StableDiffusionPipeline:
    """An ordinary pipeline of the four parts, with the scheduler of a phase."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=phase.scheduler(**phase.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
