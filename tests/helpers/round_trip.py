"""Error of inverting images of the tiny world and sampling them back; prints the table in docs/inversion.md.

python tests/helpers/round_trip.py
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import sys

import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from bench.data.cache import to_pixels
from bench.models.family import ModelFamily
from bench.models.inversion import InversionSettings, Renoise, invert
from bench.tiny import TINY

STEPS = (10, 20, 50)
PICTURES = 8


@dataclasses.dataclass(frozen=True)
class RoundTrip:
    """Errors of one inversion method, over all images.

    Attributes:
        latents: root of the mean squared error of the latents, as a share of the root of their mean square.
        pixels: mean absolute error of the decoded images, out of 255.
    """

    latents: float
    pixels: float


def pictures(model: ModelFamily, count: int) -> tuple[Tensor, list[str]]:
    """Latents of the first images in tiny's preference data, and their captions."""
    rows = pq.read_table(str(TINY.data), columns=["caption", "jpg_0"]).slice(0, count).to_pylist()
    pixels = []
    for row in rows:
        with Image.open(io.BytesIO(row["jpg_0"])) as image:
            pixels.append(to_pixels(image.convert("RGB"), (model.resolution, model.resolution)))
    return model.encode_images(torch.stack(pixels)).mean, [row["caption"] for row in rows]


@torch.no_grad()
def round_trip(model: ModelFamily, x0: Tensor, captions: list[str], steps: int, renoise: Renoise) -> RoundTrip:
    """Invert to the last time of the grid and sample back over the same times, with the prompt and without guidance."""
    told = model.encode_text(captions)
    process = model.process

    def predict(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return model.predict(model.network, x, t.float(), {name: value[rows] for name, value in told.items()})

    every = torch.arange(len(x0))
    stride = process.train_timesteps // steps
    top = 1 + stride * (steps - 1)
    settings = InversionSettings(steps, renoise=renoise)
    x = invert(predict, process, x0, torch.full((len(x0),), top), settings).latents
    for time, previous in itertools.pairwise([*range(top, 0, -stride), 0]):
        now, then = torch.full((len(x0),), time), torch.full((len(x0),), previous)
        x = process.transition(x, predict(x, now, every), now, then, eta=0.0).mean
    before, after = (torch.from_numpy(model.decode(latents)).float() for latents in (x0, x))
    error = (x - x0).square().mean().sqrt() / x0.square().mean().sqrt()
    return RoundTrip(error.item(), (after - before).abs().mean().item())


def main() -> None:
    """Print the table."""
    model = TINY.family.load(TINY.source, device=torch.device("cpu"))
    x0, captions = pictures(model, PICTURES)
    lines = ["| steps | DDIM: latents | DDIM: pixels | one refinement: latents | one refinement: pixels |"]
    lines.append("| --: | --: | --: | --: | --: |")
    for steps in STEPS:
        plain, refined = (round_trip(model, x0, captions, steps, renoise) for renoise in ("none", "next"))
        lines.append(
            f"| {steps} | {100 * plain.latents:.1f} % | {plain.pixels:.2f} | {100 * refined.latents:.1f} % | {refined.pixels:.2f} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
