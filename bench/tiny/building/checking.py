"""Training the tiny world's checker on scenes whose properties are known, drawn and distorted as a model draws them.

A quarter of each batch are pictures that the base model made from noise.  Of these only what was asked for is known, which it nearly
always draws: a checker that has not seen them takes a soft balloon for a rocket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.tiny.building.distortion import DistortedScenes, distort
from bench.tiny.building.fitting import FitSettings, draws, fit
from bench.tiny.checker import GEOMETRY, Checker
from bench.tiny.world import COLOURS, OBJECTS, TEXTURES, Request, Scene

SETTINGS = FitSettings(steps=3500, learning_rate=2e-3, average=0.997)
BATCH = 64
MADE = 16
"""How many of a batch the base model made from noise."""
MISTAKES = 0.05
"""Label smoothing for these, some of which do not show what was asked for."""
CLASSES = ("object", "colour", "texture")


def targets(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """The true properties of scenes: class numbers, int64 (N,), and geometry, float32 (N, 4)."""
    return {
        "object": torch.tensor([list(OBJECTS).index(scene.object) for scene in scenes]),
        "colour": torch.tensor([list(COLOURS).index(scene.colour) for scene in scenes]),
        "texture": torch.tensor([TEXTURES.index(scene.texture) for scene in scenes]),
        "geometry": torch.tensor([[getattr(scene, name) for name in GEOMETRY] for scene in scenes]),
    }


def train_checker(pool: DistortedScenes, made: Tensor, requests: Sequence[Request], out: Path, state: Path) -> Checker:
    """Train the checker and save it as float16.

    Args:
        pool: scenes.
        made: pictures by the base model, uint8 (N, 3, 64, 64).
        requests: what each of them was made for, N.
        out: folder of the result.
        state: where unfinished training is kept.
    """
    torch.manual_seed(3)
    checker: Any = Checker()
    checker.to(memory_format=torch.channels_last)  # convolutions are faster so
    truth, asked = targets(pool.scenes), requested(requests)

    def loss(step: int) -> Tensor:
        rows, made_rows = draws(step, len(pool), BATCH - MADE, seed=3), draws(step, len(made), MADE, seed=7)
        pixels = torch.cat([pool.pixels(rows, step), distort(made[made_rows].float() / 127.5 - 1, step)])
        answers = checker(pixels.contiguous(memory_format=torch.channels_last))
        known = {name: answer[:-MADE] for name, answer in answers.items()}
        error = property_loss(known, {name: value[rows] for name, value in truth.items()})
        return error + request_loss(answers, {name: value[made_rows] for name, value in asked.items()}) * MADE / BATCH

    fit("checker", nn.ModuleDict({"checker": checker}), loss, SETTINGS, state)
    weights = {name: value.half().contiguous() for name, value in checker.state_dict().items()}
    save_file(weights, out / "checker.safetensors")
    return Checker.load(out)


def requested(requests: Sequence[Request]) -> dict[str, Tensor]:
    """The class numbers of what was asked for, int64 (N,)."""
    return {
        "object": torch.tensor([list(OBJECTS).index(request.object) for request in requests]),
        "colour": torch.tensor([list(COLOURS).index(request.colour) for request in requests]),
    }


def request_loss(answers: Mapping[str, Tensor], asked: Mapping[str, Tensor]) -> Tensor:
    """Smoothed cross-entropy of the last answers of a batch, (B, n) by head, with what was asked for, (N,) by head."""
    return torch.stack(
        [
            nn.functional.cross_entropy(answers[name][-len(numbers) :].float(), numbers, label_smoothing=MISTAKES)
            for name, numbers in asked.items()
        ]
    ).sum()


def property_loss(answers: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy of the class heads plus 20 times the squared error of the geometry head; answers are (B, n) by head."""
    classes = [nn.functional.cross_entropy(answers[name].float(), truth[name]) for name in CLASSES]
    return torch.stack(classes).sum() + 20 * nn.functional.mse_loss(answers["geometry"].float(), truth["geometry"])


@torch.no_grad()
def checker_quality(checker: Checker, held: DistortedScenes) -> dict[str, float]:
    """Accuracies and mean absolute errors on held-out scenes: drawn, decoded, and half of each distorted."""
    truth, rows = targets(held.scenes), torch.arange(len(held))
    kinds = {
        "drawn": held.drawn.float() / 127.5 - 1,
        "decoded": held.decoded.float() / 127.5 - 1,
        "distorted": held.pixels(rows, 0),
    }
    figures: dict[str, float] = {}
    for kind, pixels in kinds.items():
        answers = checker(pixels)
        for name in CLASSES:
            figures[f"{name} right, {kind}"] = (answers[name].argmax(1) == truth[name]).float().mean().item()
        for name, error in zip(GEOMETRY, (answers["geometry"] - truth["geometry"]).abs().mean(0), strict=True):
            figures[f"{name} error, {kind}"] = error.item()
    return figures
