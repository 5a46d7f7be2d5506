"""Images from noise, under the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.models.family import ModelFamily
from bench.protocol import GenerationSettings


def build_scheduler(settings: GenerationSettings, config: Mapping[str, Any]) -> Any:
    """The diffusers scheduler of the protocol, with the model's own noise schedule.

    Raises:
        UserError: diffusers has no scheduler of that name.
    """
    import diffusers

    kind = getattr(diffusers, settings.scheduler, None)
    if kind is None:
        raise UserError(f"diffusers has no scheduler {settings.scheduler!r}; give a class name such as DDIMScheduler")
    scheduler = kind.from_config(dict(config))
    scheduler.set_timesteps(settings.steps)
    return scheduler


@torch.no_grad()
def sample(
    model: ModelFamily,
    network: nn.Module,
    noise: Tensor,
    condition: Mapping[str, Tensor],
    negative: Mapping[str, Tensor],
    settings: GenerationSettings,
) -> Tensor:
    """Denoise ``noise`` (B, ...) with classifier-free guidance; clean latents of the same shape, float32.

    Args:
        condition: embeddings of the prompts, leading axis B.
        negative: embeddings of the negative prompt, leading axis B; not used when guidance is 1.
    """
    scheduler = build_scheduler(settings, model.scheduler_config)
    latents: Tensor = noise * scheduler.init_noise_sigma
    guided = settings.guidance_scale > 1
    both = {name: torch.cat([negative[name], value]) for name, value in condition.items()} if guided else condition
    for t in scheduler.timesteps:
        inputs = scheduler.scale_model_input(latents, t)
        if guided:
            inputs = torch.cat([inputs, inputs])
        times = t.expand(len(inputs)).to(latents.device)
        with torch.autocast(latents.device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16"):
            prediction = model.predict(network, inputs, times, both)
        if guided:
            without, with_prompt = prediction.float().chunk(2)
            prediction = without + settings.guidance_scale * (with_prompt - without)
        latents = scheduler.step(prediction.float(), t, latents).prev_sample
    return latents
