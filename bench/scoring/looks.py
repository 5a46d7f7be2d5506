"""How images look, whatever they show: signs of collapse that no judge measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.core.values import digest

VERSION = 1
SIDE = 32
"""Images are compared at this size, in pixels, so that diversity is about layout and colour and not about noise."""
DARK = 0.1
"""A pixel of less luma is dark."""
EDGE = 0.1
"""A step of luma between neighbours that is larger is an edge."""

Images = NDArray[np.uint8]


def signature() -> str:
    """What decides these numbers in addition to the images; a new version never shares a panel with an old one."""
    return digest({"version": VERSION, "side": SIDE, "dark": DARK, "edge": EDGE})


def looks(images: Images) -> dict[str, list[float]]:
    """Looks of every image of one prompt, each in [0, 1].

    ``dark`` is the share of pixels with a luma (Rec. 601) below `DARK`; ``saturation`` the mean of (max - min) / max over the
    channels, 0 for black; ``edges`` the share of neighbouring pixels whose luma differs by more than `EDGE`; ``diversity`` the
    mean root-mean-square distance from the prompt's other images at `SIDE` pixels, so that its mean over the prompt's images is
    the mean pairwise distance.

    Args:
        images: uint8, (N, H, W, 3), of one prompt; N is at least 2.

    Raises:
        ValueError: there is a single image, which has no diversity.
    """
    if len(images) < 2:
        raise ValueError("diversity needs at least two images of a prompt")
    pixels = images.astype(np.float64) / 255
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    largest = pixels.max(axis=-1)
    chroma = largest - pixels.min(axis=-1)
    saturation = np.divide(chroma, largest, out=np.zeros_like(chroma), where=largest > 0)
    steps = [np.abs(np.diff(luma, axis=axis)).reshape(len(images), -1) for axis in (1, 2)]
    return {
        "dark": (luma < DARK).mean(axis=(1, 2)).tolist(),
        "saturation": saturation.mean(axis=(1, 2)).tolist(),
        "edges": (np.concatenate(steps, axis=1) > EDGE).mean(axis=1).tolist(),
        "diversity": _distances(pixels),
    }


def _distances(pixels: NDArray[np.float64]) -> list[float]:
    """Mean root-mean-square distance of every image from the others."""
    small = np.stack([_reduced(image) for image in pixels]).reshape(len(pixels), -1)
    squares = ((small[:, None] - small[None]) ** 2).mean(axis=2)
    return [float(total) / (len(pixels) - 1) for total in np.sqrt(squares).sum(axis=1)]


def _reduced(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """An image's means over a grid of `SIDE` x `SIDE` blocks, or as it is where it is smaller."""
    for axis in (0, 1):
        if image.shape[axis] > SIDE:
            starts = np.arange(SIDE) * image.shape[axis] // SIDE
            counts = np.diff([*starts, image.shape[axis]])
            image = np.add.reduceat(image, starts, axis=axis) / np.expand_dims(
                counts, [a for a in range(3) if a != axis]
            )
    return image


def looks_by_prompt(images: Sequence[Images]) -> dict[str, list[float]]:
    """`looks` of the images of several prompts, in their order."""
    each = [looks(of_prompt) for of_prompt in images]
    return {name: [value for found in each for value in found[name]] for name in each[0]}
