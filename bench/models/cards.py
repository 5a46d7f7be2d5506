"""Published models that are registered by name."""

from pathlib import Path

from bench.models.card import ModelCard
from bench.models.families.flux import Flux
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.families.stable_diffusion_3 import StableDiffusion3
from bench.models.families.stable_diffusion_xl import StableDiffusionXL
from bench.models.forward_process import FLOW_SCHEDULER
from bench.records.protocol import GenerationSettings

METRICS: dict[str, str | None] = dict.fromkeys(("pickscore", "hpsv2", "imagereward", "aesthetic", "clip"))
ARCHITECTURES = Path(__file__).parent / "architectures"

SD15 = ModelCard(
    title="Stable Diffusion 1.5",
    family=StableDiffusion,
    source="stable-diffusion-v1-5/stable-diffusion-v1-5",
    generation=GenerationSettings(scheduler="DDIMScheduler", steps=50, guidance_scale=7.5, height=512, width=512),
    architecture=str(ARCHITECTURES / "sd15"),
    metrics=METRICS,
    note="512x512, CreativeML OpenRAIL-M; needs the hub, --data and --prompts",
)

SDXL = ModelCard(
    title="Stable Diffusion XL 1.0",
    family=StableDiffusionXL,
    source="stabilityai/stable-diffusion-xl-base-1.0",
    generation=GenerationSettings(
        scheduler="EulerDiscreteScheduler", steps=50, guidance_scale=5.0, height=1024, width=1024, precision="bf16"
    ),
    architecture=str(ARCHITECTURES / "sdxl"),
    metrics=METRICS,
    note="1024x1024, CreativeML OpenRAIL++-M; needs the hub, --data and --prompts",
)


def _stable_diffusion_3(title: str, source: str, architecture: str, *, steps: int, guidance_scale: float) -> ModelCard:
    return ModelCard(
        title=title,
        family=StableDiffusion3,
        source=source,
        generation=GenerationSettings(
            scheduler=FLOW_SCHEDULER,
            steps=steps,
            guidance_scale=guidance_scale,
            height=1024,
            width=1024,
            precision="bf16",
        ),
        architecture=str(ARCHITECTURES / architecture),
        metrics=METRICS,
        recipe=StableDiffusion3.recipe,
        note="1024x1024, Stability AI Community License, gated: accept it on the hub and log in; needs --data and --prompts",
    )


SD3 = _stable_diffusion_3(
    "Stable Diffusion 3 Medium", "stabilityai/stable-diffusion-3-medium-diffusers", "sd3", steps=28, guidance_scale=7.0
)

SD35 = _stable_diffusion_3(
    "Stable Diffusion 3.5 Medium", "stabilityai/stable-diffusion-3.5-medium", "sd35", steps=40, guidance_scale=4.5
)

FLUX = ModelCard(
    title="FLUX.1 dev",
    family=Flux,
    source="black-forest-labs/FLUX.1-dev",
    generation=GenerationSettings(
        scheduler=FLOW_SCHEDULER, steps=28, guidance_scale=3.5, height=1024, width=1024, precision="bf16"
    ),
    architecture=str(ARCHITECTURES / "flux"),
    metrics=METRICS,
    note="1024x1024, FLUX.1 [dev] Non-Commercial License, gated: accept it on the hub and log in; needs --data and --prompts",
)
