"""The tiny world: two real text-to-image models with their data, voters and scorers, small enough for a laptop.

`TINY` and `TINY_FLOW` are the registered models; ``python -m bench.tiny.build`` rebuilds every asset from scratch.
"""

import dataclasses
from pathlib import Path

from bench.models.card import ModelCard
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.forward_process import FLOW_SCHEDULER
from bench.prompts.sets import PromptSet
from bench.records.protocol import GenerationSettings
from bench.tiny.world import TEXTURES, VOCABULARY

ASSETS = Path(__file__).parent / "assets"

GENERATION = GenerationSettings(
    scheduler="DDIMScheduler", steps=20, guidance_scale=3.0, height=64, width=64, images_per_prompt=1
)

FLOW_GENERATION = GENERATION.model_copy(update={"scheduler": FLOW_SCHEDULER})

TINY = ModelCard(
    title="Tiny",
    family=StableDiffusion,
    source=str(ASSETS / "model"),
    generation=GENERATION,
    data=str(ASSETS / "preferences.parquet"),
    prompts=str(ASSETS / "prompts.txt"),
    metrics={
        "pickscore": str(ASSETS / "scorers" / "pickscore"),
        "hpsv2": str(ASSETS / "scorers" / "hpsv2"),
        "imagereward": str(ASSETS / "scorers" / "imagereward"),
        "aesthetic": str(ASSETS / "scorers" / "aesthetic"),
        "gold": str(ASSETS / "checker"),
    },
    note="64x64 images of 50 objects, offline, on two CPU cores; OpenMoji glyphs, CC BY-SA 4.0",
    on_cpus="the README's figures say how long runs of this model take there",
)

TINY_FLOW = dataclasses.replace(
    TINY,
    title="Tiny flow",
    source=str(ASSETS / "flow"),
    generation=FLOW_GENERATION,
    recipe="tiny",
    on_cpus="runs take about as long as those of tiny, for which the README has figures",
    note="tiny's network trained on as a flow, with its data, metrics and recipes, none of which was chosen for it; OpenMoji glyphs, CC BY-SA 4.0",
)

WORDS = {**VOCABULARY, "textures": TEXTURES}
"""All words of the captions, by kind."""

PROMPTS = PromptSet(
    title="Tiny world, evaluation",
    source=str(ASSETS),
    files=("prompts.txt",),
    count=200,
    licence="Apache-2.0",
    note="the default for --model tiny and tiny-flow; captions name an object and a background colour, two in five also a size, two in five a place, one in "
    "five a texture",
    vocabulary=WORDS,
)

TUNING_PROMPTS = PromptSet(
    title="Tiny world, tuning",
    source=str(ASSETS),
    files=("tuning-prompts.txt",),
    count=64,
    licence="Apache-2.0",
    note="to choose settings by; object and colour are combined as in the preference pairs, never as in the evaluation prompts",
    vocabulary=WORDS,
)
