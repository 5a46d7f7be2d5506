"""The stages that make the parts of the tiny world, each with what decides its result."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from bench.core.files import write_json
from bench.models.families.stable_diffusion import StableDiffusion
from bench.tiny import FLOW_GENERATION, voters, world
from bench.tiny.building import (
    autoencoder,
    checking,
    denoiser,
    off_policy,
    pairs,
    redrawing,
    scorers,
    towers,
    votes,
)
from bench.tiny.building.captions import describe_fully
from bench.tiny.building.distortion import DistortedScenes, decoded_scenes, draw_distorted, random_scenes
from bench.tiny.building.rewards import blip_tokenizer
from bench.tiny.building.scenes import draw_pool
from bench.tiny.building.stages import Places, Stage, folder_digest
from bench.tiny.building.tokenizer import write_bert_tokenizer, write_clip_tokenizer
from bench.tiny.checker import Checker

AUTOENCODER_SCENES = 40_000
DISTORTED_SCENES = 12_000
HELD_OUT = 1024
REDRAWN_SCENES = 4000
SCORER_REQUESTS = 3000
"""The base model makes two pictures for each of these for the scorers' votes."""
GRID = 8
FIGURES = "figures.json"


def make_autoencoder(places: Places) -> None:
    """Trains the autoencoder."""
    vae = autoencoder.train_autoencoder(draw_pool(AUTOENCODER_SCENES, 0, places.cache), places.state)
    vae.save_pretrained(places.output)
    error = autoencoder.reconstruction_error(vae, draw_pool(HELD_OUT, 1, places.cache))
    write_json(places.output / FIGURES, {"mean squared error on [-1, 1]": error})


def load_autoencoder(folder: Path) -> Any:
    """The finished autoencoder, for encoding and decoding alone."""
    vae: Any = AutoencoderKL.from_pretrained(folder, local_files_only=True)
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def make_pretrained(places: Places) -> None:
    """Trains a new denoiser with its text encoder, in the first phase."""
    write_clip_tokenizer(places.state / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(str(places.state / "tokenizer"))
    parts = denoiser.build_text_encoder(tokenizer), tokenizer, denoiser.build_unet()
    save_parts(_trained(denoiser.FIRST, places, *parts), places.output)


def make_base(places: Places) -> None:
    """Continues training in the second phase; the result is the base model."""
    save_trained(denoiser.SECOND, places, *load_parts(places.inputs["pretrained"]))


def make_flow(places: Places) -> None:
    """Trains the base model on as a flow, and measures how often that draws what it is asked for."""
    base = load_pipeline(places.inputs["base"])
    save_trained(denoiser.FLOW, places, base.text_encoder, base.tokenizer, base.unet)
    made = pairs.protocol_pictures(load_finished(places.output), pairs.evaluation_prompts(), FLOW_GENERATION)
    rates = evaluation_rates(Checker.load(places.inputs["checker"]), made)
    write_json(places.output / FIGURES, {"evaluation prompts": rates})


def evaluation_rates(checker: Checker, pictures: Tensor) -> dict[str, float]:
    """How often one picture of each evaluation prompt, uint8, (N, 3, 64, 64), shows what is named."""
    asked = [request for request in map(world.parse_caption, pairs.evaluation_prompts()) if request]
    return pairs.rates(asked, checker.measure(pictures.float() / 127.5 - 1))


def save_trained(phase: denoiser.Phase, places: Places, text_encoder: Any, tokenizer: Any, unet: Any) -> None:
    """Train parts in a phase, and save them as a pipeline."""
    pipeline = _trained(phase, places, text_encoder, tokenizer, unet)
    pipeline.vae = AutoencoderKL.from_pretrained(places.inputs["autoencoder"], local_files_only=True)
    save_half(pipeline, places.output)


def latents_of(places: Places, autoencoder_folder: Path) -> Path:
    """Where the latents of an autoencoder are kept."""
    return places.cache / f"latents-{folder_digest(autoencoder_folder)}"


def _trained(
    phase: denoiser.Phase, places: Places, text_encoder: Any, tokenizer: Any, unet: Any
) -> StableDiffusionPipeline:
    folder = places.inputs["autoencoder"]
    pipeline = denoiser.assemble(load_autoencoder(folder), text_encoder, tokenizer, unet, phase)
    denoiser.train_denoiser(phase, pipeline, places.state, latents_of(places, folder))
    return pipeline


def save_parts(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save the parts that are trained, in float32, and their tokenizer."""
    for name in ("text_encoder", "tokenizer", "unet"):
        getattr(pipeline, name).save_pretrained(folder / name)


def load_parts(folder: Path) -> tuple[Any, Any, Any]:
    """The text encoder, the tokenizer and the denoiser that `save_parts` has saved."""
    return (
        CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True),
        CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True),
        UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True),
    )


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The finished base model as a pipeline of diffusers, in float32."""
    pipeline: StableDiffusionPipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, safety_checker=None, local_files_only=True
    )
    return pipeline


def load_finished(folder: Path) -> StableDiffusion:
    """A finished model."""
    return StableDiffusion.load(str(folder), device=torch.device("cpu"))


def save_half(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save a pipeline as float16 safetensors, without the local paths that diffusers records."""
    half = copy.deepcopy(pipeline)  # the caller continues with the parts in float32
    for part in half.components.values():
        if isinstance(part, nn.Module):
            part.half()
    half.save_pretrained(folder, safe_serialization=True)
    for config in folder.rglob("*.json"):
        lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
        config.write_text("".join(line for line in lines if '"_name_or_path"' not in line), encoding="utf-8")


def make_scenes(places: Places) -> None:
    """Draws scenes and sends them through the autoencoder, for the checker, the towers and the votes."""
    vae = load_autoencoder(places.inputs["autoencoder"])
    for name, count, seed in (("train", DISTORTED_SCENES, 0), ("held-out", HELD_OUT, 1)):
        pool = draw_distorted(vae, count, seed, places.state / name)
        np.savez(places.output / f"{name}.npz", drawn=pool.drawn.numpy(), decoded=pool.decoded.numpy())


def make_redrawn(places: Places) -> None:
    """Lets the base model draw the first of the scenes again."""
    pool = load_scenes(places.inputs["scenes"], "train")
    captions = [describe_fully(scene).caption for scene in pool.scenes[:REDRAWN_SCENES]]
    pipeline = load_pipeline(places.inputs["base"])
    pictures = redrawing.redrawn(pipeline, captions, pool.drawn[:REDRAWN_SCENES], places.state)
    np.save(places.output / "redrawn.npy", pictures.numpy())


def load_scenes(folder: Path, name: str) -> DistortedScenes:
    """Finished scenes, ``train`` or ``held-out``."""
    seed = {"train": 0, "held-out": 1}[name]
    with np.load(folder / f"{name}.npz") as pictures:
        drawn, decoded = torch.from_numpy(pictures["drawn"]), torch.from_numpy(pictures["decoded"])
    return DistortedScenes(random_scenes(len(drawn), seed), drawn, decoded)


def load_training_scenes(places: Places) -> DistortedScenes:
    """The scenes that the checker and the towers learn from; the first of them as the base model drew them again."""
    pool = load_scenes(places.inputs["scenes"], "train")
    again = torch.from_numpy(np.load(places.inputs["redrawn"] / "redrawn.npy"))
    return dataclasses.replace(pool, drawn=torch.cat([again, pool.drawn[len(again) :]]))


def make_checker(places: Places) -> None:
    """Trains the checker."""
    pool, (made, requests) = load_training_scenes(places), load_scorer_pictures(places)
    checker = checking.train_checker(pool, made, requests, places.output, places.state)
    held = load_scenes(places.inputs["scenes"], "held-out")
    write_json(places.output / FIGURES, checking.checker_quality(checker, held))


def make_preferences(places: Places) -> None:
    """Evaluation prompts, a sheet of samples, the preference pairs, and how often the base draws what it is asked for."""
    checker, made = Checker.load(places.inputs["checker"]), places.inputs["pictures"]
    prompts = pairs.evaluation_prompts()
    for name, lines in (("prompts.txt", prompts), ("tuning-prompts.txt", pairs.tuning_prompts())):
        (places.output / name).write_text("".join(f"{prompt}\n" for prompt in lines), encoding="utf-8")
    samples = torch.from_numpy(np.load(made / "samples.npy"))
    write_grid(samples[: GRID * GRID], places.output / "samples.png")
    rates = evaluation_rates(checker, samples)
    requests, pictures = preference_requests(), torch.from_numpy(np.load(made / "preferences.npy"))
    preference = pairs.preferences(checker, requests, pictures)
    pairs.write_preferences(places.output / "preferences.parquet", requests, pictures, preference, "tiny")
    surer = float(np.maximum(preference, 1 - preference).mean())
    figures = {"base, evaluation prompts": rates, "pairs": len(requests), "mean max(p, 1 - p)": surer}
    write_json(places.output / FIGURES, figures)


def make_off_policy(places: Places) -> None:
    """Preference pairs of drawn scenes that went through the autoencoder."""
    requests = pairs.draw_requests(pairs.combinations()[0], off_policy.PAIRS, seed=46)
    scenes = off_policy.draw_sides(requests, seed=47)
    decoded = decoded_scenes(load_autoencoder(places.inputs["autoencoder"]), scenes, places.state)
    pictures = decoded.unflatten(0, (len(requests), 2))
    preference = pairs.preferences(Checker.load(places.inputs["checker"]), requests, pictures)
    pairs.write_preferences(places.output / "off-policy.parquet", requests, pictures, preference, "scenes")
    surer = float(np.maximum(preference, 1 - preference).mean())
    write_json(places.output / FIGURES, {"pairs": len(requests), "mean max(p, 1 - p)": surer})


def make_pictures(places: Places) -> None:
    """Pictures by the base model: of the evaluation prompts, and two for each request of the preferences and of the scorers' votes."""
    model = load_finished(places.inputs["base"])
    np.save(places.output / "samples.npy", pairs.protocol_pictures(model, pairs.evaluation_prompts()).numpy())
    for name, requests in (("preferences", preference_requests()), ("scorers", scorer_requests())):
        np.save(places.output / f"{name}.npy", pairs.generate(model, requests, name, places.state).numpy())


def preference_requests() -> list[world.Request]:
    """What the base model is asked for in the preferences."""
    return pairs.draw_requests(pairs.combinations()[0], pairs.PAIRS, seed=43)


def scorer_requests() -> list[world.Request]:
    """What the base model is asked for in the scorers' votes."""
    return pairs.draw_requests(pairs.combinations()[0], SCORER_REQUESTS, seed=100)


def load_scorer_pictures(places: Places) -> tuple[torch.Tensor, list[world.Request]]:
    """The pictures for the scorers' votes, uint8 (N, 3, 64, 64), and what each was made for."""
    made = torch.from_numpy(np.load(places.inputs["pictures"] / "scorers.npy")).flatten(0, 1)
    return made, [request for request in scorer_requests() for _ in (0, 1)]


def make_clip(places: Places) -> None:
    """Pre-trains the CLIP of PickScore, HPSv2 and the aesthetic predictor."""
    write_clip_tokenizer(places.state / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(str(places.state / "tokenizer"))
    clip = towers.pretrained_clip(load_training_scenes(places), tokenizer, places.state)
    torch.save(clip.state_dict(), places.output / "clip.pt")


def make_blip(places: Places) -> None:
    """Pre-trains the BLIP of ImageReward."""
    write_bert_tokenizer(places.state / "tokenizer")
    tokenizer = blip_tokenizer(places.state / "tokenizer")
    blip = towers.pretrained_blip(load_training_scenes(places), tokenizer, places.state)
    torch.save(blip.state_dict(), places.output / "blip.pt")


def scorer_stage(name: str) -> Stage:
    """The stage that trains one scorer on its votes."""
    tower = "blip" if name == "imagereward" else "clip"

    def make(places: Places) -> None:
        made, requests = load_scorer_pictures(places)
        pool, checker = load_scenes(places.inputs["scenes"], "train"), Checker.load(places.inputs["checker"])
        share = votes.scorer_votes(name, pool, made, requests, checker)
        weights = places.inputs[tower] / f"{tower}.pt"
        accuracy = scorers.train_scorer(name, weights, share, places.output, places.state)
        write_json(places.output / FIGURES, {"accuracy on held-out votes": accuracy})

    recipe = {"settings": str(scorers.VOTING), "epochs": scorers.VOTE_EPOCHS, "batch": scorers.VOTE_BATCH,
              "votes": [votes.SCENE_VOTES, votes.MODEL_VOTES, votes.ALIKE, votes.WRONG_CAPTIONS], **voters.RULES}  # fmt: skip
    return Stage(name, make, recipe, needs=("scenes", "checker", "pictures", tower))


def write_grid(pictures: torch.Tensor, path: Path) -> None:
    """Write `GRID` x `GRID` pictures, uint8 (N, 3, h, w), as one PNG, each pixel doubled."""
    rows = [torch.cat(list(row), dim=2) for row in pictures.split(GRID)]
    image = Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).numpy())
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(path)
