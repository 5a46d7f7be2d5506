"""Scenes that the base model has drawn again: its own lines and mistakes, on pictures whose properties are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from torch import Tensor

from bench.core.files import write_array
from bench.core.progress import Progress
from bench.tiny import GENERATION

PIECE = 64
STRENGTHS = (0.3, 0.6)
"""How much of the denoising is done again, drawn for each piece; above 0.6, objects move and change."""


def redrawn(pipeline: StableDiffusionPipeline, captions: Sequence[str], pictures: Tensor, folder: Path) -> Tensor:
    """Pictures drawn again from noised ones under their captions; uint8, (N, 3, 64, 64), both.

    Made in pieces that are kept in ``folder``, so that an interrupted call continues.
    """
    again = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    again.set_progress_bar_config(disable=True)
    parts = []
    with Progress("redrawing scenes", total=len(captions)) as progress:
        for start in range(0, len(captions), PIECE):
            path = folder / f"redrawn-{start:06d}.npy"
            if not path.exists():
                rows = slice(start, start + PIECE)
                source = torch.Generator().manual_seed(start)
                low, high = STRENGTHS
                made = again(
                    list(captions[rows]), pictures[rows].float() / 255, output_type="np", generator=source,
                    strength=low + (high - low) * torch.rand((), generator=source).item(),
                    num_inference_steps=GENERATION.steps, guidance_scale=GENERATION.guidance_scale,
                ).images  # fmt: skip
                write_array(path, (made * 255).round().astype(np.uint8).transpose(0, 3, 1, 2))
            parts.append(np.load(path))
            progress.advance(len(parts[-1]))
    return torch.from_numpy(np.concatenate(parts))
