"""The tiny world's own checker: measures every property of an image, independently of the scorers that methods train on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.tiny.world import COLOURS, OBJECTS, RESOLUTION, TEXTURES

GEOMETRY = ("size", "x", "y", "vividness")
HEADS = {"object": len(OBJECTS), "colour": len(COLOURS), "texture": len(TEXTURES), "geometry": len(GEOMETRY)}


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """What N images show; sizes and positions are shares of the side, ``textured`` is P(the background is not plain)."""

    objects: list[str]
    colours: list[str]
    textures: list[str]
    size: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    vividness: NDArray[np.float64]
    textured: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.objects)


PIECE = 256
"""How many images go through the network at a time, which bounds its memory."""


class Checker(nn.Module):
    """A small residual network with one head per kind of property."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 48, 96, 128)
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            _Stage(before, after) for before, after in zip((widths[0], *widths[:-1]), widths, strict=True)
        )
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(widths[-1] * 16, 192), nn.GELU())
        self.heads = nn.ModuleDict({name: nn.Linear(192, size) for name, size in HEADS.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Images in [-1, 1], (B, 3, 64, 64), to class logits and geometry values by head, (B, n) each."""
        x = self.stem(pixels)
        for stage in self.stages:
            x = stage(x)
        x = self.trunk(x)
        return {name: head(x) for name, head in self.heads.items()}

    @torch.no_grad()
    def measure(self, pixels: Tensor) -> Measured:
        """Measure images in [-1, 1], (B, 3, 64, 64)."""
        pieces = [self(piece) for piece in pixels.split(PIECE)]
        out = {name: torch.cat([piece[name] for piece in pieces]).double() for name in pieces[0]}
        names, colours = tuple(OBJECTS), tuple(COLOURS)
        geometry = dict(zip(GEOMETRY, out["geometry"].T.numpy(), strict=True))
        return Measured(
            objects=[names[i] for i in out["object"].argmax(1).tolist()],
            colours=[colours[i] for i in out["colour"].argmax(1).tolist()],
            textures=[TEXTURES[i] for i in out["texture"].argmax(1).tolist()],
            textured=1 - out["texture"].softmax(1)[:, TEXTURES.index("plain")].numpy(),
            **geometry,
        )

    @classmethod
    def load(cls, folder: str | Path) -> Checker:
        """Read the checker from ``checker.safetensors`` in a folder."""
        checker = cls()
        weights = load_file(Path(folder) / "checker.safetensors")
        checker.load_state_dict({name: value.float() for name, value in weights.items()})
        return checker.eval()


class _Stage(nn.Module):
    """Halve the resolution, then one residual block."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(before, after, 4, stride=2, padding=1)
        self.block = nn.Sequential(
            nn.GroupNorm(8, after), nn.GELU(), nn.Conv2d(after, after, 3, padding=1),
            nn.GroupNorm(8, after), nn.GELU(), nn.Conv2d(after, after, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Any:
        x = self.down(x)
        return x + self.block(x)


def to_unit_pixels(images: list[Image.Image]) -> Tensor:
    """RGB images, resized to the world's resolution where they differ; float32 in [-1, 1], (B, 3, 64, 64)."""
    side = (RESOLUTION, RESOLUTION)
    arrays = [np.asarray(image.convert("RGB").resize(side, Image.Resampling.BICUBIC), np.float32) for image in images]
    return torch.from_numpy(np.stack(arrays) / 127.5 - 1).permute(0, 3, 1, 2)
