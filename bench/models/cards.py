"""Published models that are registered by name."""

from bench.models.card import ModelCard
from bench.models.stable_diffusion import StableDiffusion
from bench.protocol import GenerationSettings

SD15 = ModelCard(
    title="Stable Diffusion 1.5",
    family=StableDiffusion,
    source="stable-diffusion-v1-5/stable-diffusion-v1-5",
    generation=GenerationSettings(scheduler="DDIMScheduler", steps=50, guidance_scale=7.5, height=512, width=512),
    metrics={"pickscore": None, "hpsv2": None, "imagereward": None, "aesthetic": None, "clip": None},
    note="512x512, CreativeML OpenRAIL-M; needs the hub, --data and --prompts",
)
