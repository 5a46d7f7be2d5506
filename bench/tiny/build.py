"""``python -m bench.tiny.build``: rebuild every asset of the tiny world from scratch.

Takes about two hours on two CPU cores, resumes where it was stopped, and prints quality figures of each part.  Those of the
shipped assets are in ``assets/quality.json``.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import AutoencoderKL, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from bench.core.files import replace_folder, write_json
from bench.models.families.stable_diffusion import StableDiffusion
from bench.tiny import ASSETS, world
from bench.tiny.building import checking, pairs
from bench.tiny.building.autoencoder import decode_pool, reconstruction_error, train_autoencoder
from bench.tiny.building.denoiser import train_denoiser
from bench.tiny.building.scenes import Pool, draw_pool
from bench.tiny.building.scorers import Votes, train_scorers
from bench.tiny.checker import Checker

SCENES = 40_000
HELD_OUT = 1024
SCORERS = ("pickscore", "hpsv2", "imagereward", "aesthetic")
SCENE_VOTES = 6000
MODEL_VOTES = 300
ALIKE = 0.7
GRID = 8


def build(out: Path, work: Path) -> dict[str, Any]:
    """Build every asset in ``out``, with intermediate results in ``work``; returns the quality figures."""
    quality: dict[str, Any] = {}
    pool, held = draw_pool(SCENES, 0, work), draw_pool(HELD_OUT, 1, work)

    if not (work / "vae").exists():
        vae = train_autoencoder(pool, work)
        replace_folder(work / "vae", vae.save_pretrained)
    vae = AutoencoderKL.from_pretrained(work / "vae")
    quality["autoencoder"] = {"mean squared error on [-1, 1]": reconstruction_error(vae, held)}

    if not (out / "model").exists():
        pipeline = train_denoiser(vae, work)
        replace_folder(out / "model", lambda partial: save_half(pipeline, partial))
    model = StableDiffusion.load(str(out / "model"), device=torch.device("cpu"))

    if not (out / "checker").exists():
        checking.train_checker(vae, pool, out / "checker", work)
    checker = Checker.load(out / "checker")
    quality["checker"] = checking.checker_quality(checker, vae, held)

    prompts = pairs.evaluation_prompts()
    (out / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    samples = pairs.protocol_pictures(model, prompts)
    write_grid(samples[: GRID * GRID], out / "samples.png")
    asked = [request for request in map(world.parse_caption, prompts) if request]
    measured = checker.measure(samples.float() / 127.5 - 1)
    quality["model, evaluation prompts under the protocol"] = pairs.rates(asked, measured)

    requests = pairs.draw_requests(pairs.combinations()[0], pairs.PAIRS, seed=43)
    pictures = pairs.generate(model, requests, "preferences", work)
    preference = pairs.preferences(checker, requests, pictures)
    pairs.write_preferences(out / "preferences.parquet", requests, pictures, preference)
    quality["preferences"] = {"pairs": len(requests), "mean |p - 0.5|": float(np.abs(preference - 0.5).mean())}
    asked = [request for request in requests for _ in (0, 1)]
    measured = checker.measure(pictures.flatten(0, 1).float() / 127.5 - 1)
    quality["model, prompts of the preference pairs"] = pairs.rates(asked, measured)

    shares = {name: scorer_votes(name, model, checker, vae, pool, work) for name in SCORERS}
    accuracy = train_scorers(pool, shares, out / "scorers", work)
    quality["scorers"] = {f"{name}, accuracy on held-out votes": value for name, value in accuracy.items()}
    write_json(out / "quality.json", quality)
    return quality


def save_half(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save a pipeline as float16 safetensors, without the local paths that diffusers records."""
    half = copy.deepcopy(pipeline)  # the caller continues with the parts in float32
    for part in (half.unet, half.vae, half.text_encoder):
        part.half()
    half.save_pretrained(folder, safe_serialization=True)
    for config in folder.rglob("*.json"):
        lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
        config.write_text("".join(line for line in lines if '"_name_or_path"' not in line), encoding="utf-8")


def scorer_votes(name: str, model: StableDiffusion, checker: Checker, vae: Any, pool: Pool, work: Path) -> Votes:
    """One scorer's own share of votes: on decoded scenes, half of them with a wrong caption, and on the model's images."""
    rng = np.random.default_rng((44, SCORERS.index(name)))
    decoded = decode_pool(vae, pool, checking.DECODED, work)
    picks = _scene_pairs(rng, pool.requests[: checking.DECODED])
    asked = [_request_for_pair(rng, pool, pick) for pick in picks]
    asked += pairs.draw_requests(pairs.combinations()[0], MODEL_VOTES, seed=100 + SCORERS.index(name))
    made = pairs.generate(model, asked[SCENE_VOTES:], f"votes-{name}", work)
    pictures = torch.cat([decoded[torch.from_numpy(picks)], made])
    order = torch.from_numpy(rng.permutation(len(asked)))
    asked, pictures = [asked[i] for i in order.tolist()], pictures[order]
    preference = pairs.preferences(checker, asked, pictures)
    return Votes([request.caption for request in asked], pictures, torch.from_numpy(pairs.votes(preference, name)))


def _scene_pairs(rng: np.random.Generator, requests: Sequence[world.Request]) -> NDArray[np.int64]:
    """Row numbers of the two scenes of each pair, (SCENE_VOTES, 2); most pairs share object and colour, so the rest decides."""
    alike: dict[tuple[str, str], list[int]] = {}
    for row, request in enumerate(requests):
        alike.setdefault((request.object, request.colour), []).append(row)
    picks = rng.integers(len(requests), size=(SCENE_VOTES, 2))
    for pick in picks:
        if rng.uniform() < ALIKE:
            request = requests[pick[0]]
            pick[1] = rng.choice(alike[request.object, request.colour])
    return picks


def _request_for_pair(rng: np.random.Generator, pool: Pool, pick: Sequence[int]) -> world.Request:
    request = pool.requests[int(pick[0])]
    return world.corrupt_request(rng, request) if rng.uniform() < 0.5 else request


def write_grid(pictures: torch.Tensor, path: Path) -> None:
    """Write `GRID` x `GRID` pictures, uint8 (N, 3, h, w), as one PNG, each pixel doubled."""
    rows = [torch.cat(list(row), dim=2) for row in pictures.split(GRID)]
    image = Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).numpy())
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(path)


def main(
    out: Annotated[Path, typer.Option(help="Where the assets go.")] = ASSETS,
    work: Annotated[Path, typer.Option(help="Where the state between stages is kept.")] = Path("runs/tiny-build"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier call has made.")] = False,
) -> None:
    """Build the tiny world; the same command again continues."""
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    for part, figures in build(out, work).items():
        for name, value in figures.items():
            Console().print(f"{part}: {name} {value:.4g}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
