"""Training the tiny world's checker on scenes whose properties are known, both drawn and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.tiny.building.autoencoder import decode_pool
from bench.tiny.building.fitting import FitSettings, draws, fit
from bench.tiny.building.scenes import Pool
from bench.tiny.checker import GEOMETRY, Checker
from bench.tiny.world import COLOURS, OBJECTS, TEXTURES, Scene

SETTINGS = FitSettings(steps=1500, learning_rate=2e-3, average=0.995)
BATCH = 64
DECODED = 12_000


def targets(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """The true properties of scenes: class numbers, int64 (N,), and geometry, float32 (N, 4)."""
    return {
        "object": torch.tensor([list(OBJECTS).index(scene.object) for scene in scenes]),
        "colour": torch.tensor([list(COLOURS).index(scene.colour) for scene in scenes]),
        "texture": torch.tensor([TEXTURES.index(scene.texture) for scene in scenes]),
        "geometry": torch.tensor([[getattr(scene, name) for name in GEOMETRY] for scene in scenes]),
    }


def train_checker(vae: Any, pool: Pool, out: Path, work: Path) -> Checker:
    """Train the checker and save it as float16; half of every batch has been through the autoencoder."""
    torch.manual_seed(3)
    checker, truth = Checker(), targets(pool.scenes)
    decoded = decode_pool(vae, pool, DECODED, work)

    def loss(step: int) -> Tensor:
        rows = draws(step, len(pool), BATCH // 2, seed=3)
        rows_decoded = draws(step, DECODED, BATCH // 2, seed=4)
        pixels = torch.cat([pool.pixels(rows), decoded[rows_decoded].float() / 127.5 - 1])
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(step))
        both = torch.cat([rows, rows_decoded])
        answers = checker((pixels + 0.05 * noise).clamp(-1, 1))
        classes = sum(nn.functional.cross_entropy(answers[name].float(), truth[name][both]) for name in _CLASSES)
        return classes + 20 * nn.functional.mse_loss(answers["geometry"].float(), truth["geometry"][both])

    fit("checker", nn.ModuleDict({"checker": checker}), loss, SETTINGS, work)
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in checker.state_dict().items()}
    save_file(weights, out / "checker.safetensors")
    return Checker.load(out)


def checker_quality(checker: Checker, vae: Any, pool: Pool) -> dict[str, float]:
    """Accuracies and mean absolute errors on held-out scenes, drawn and decoded."""
    truth = targets(pool.scenes)
    figures: dict[str, float] = {}
    with torch.no_grad():
        drawn = pool.pixels(torch.arange(len(pool)))
        decoded = torch.cat(
            [vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1) for part in drawn.split(128)]
        )
        for kind, pixels in (("drawn", drawn), ("decoded", decoded)):
            answers = checker(pixels)
            for name in _CLASSES:
                figures[f"{name} right, {kind}"] = (answers[name].argmax(1) == truth[name]).float().mean().item()
            for name, error in zip(GEOMETRY, (answers["geometry"] - truth["geometry"]).abs().mean(0), strict=True):
                figures[f"{name} error, {kind}"] = error.item()
    return figures


_CLASSES = ("object", "colour", "texture")
