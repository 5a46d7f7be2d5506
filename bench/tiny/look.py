"""``python -m bench.tiny.look``: what the base model draws while its training is unfinished.

Writes a sheet of pictures and prints how often they show what their captions name, under guidance 3 and 20 steps.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL
from torch import nn

from bench.core.terminal import Terminal
from bench.tiny import ASSETS
from bench.tiny.build import WORK
from bench.tiny.building import pairs, parts
from bench.tiny.building.denoiser import SECOND, assemble
from bench.tiny.building.fitting import unfinished_average
from bench.tiny.building.layout_heads import LayoutHeads
from bench.tiny.checker import Checker


def main(
    work: Annotated[Path, typer.Option(help="Where stages and unfinished work are kept.")] = WORK,
    checker: Annotated[Path, typer.Option(help="Folder of the checker that measures.")] = ASSETS / "checker",
    count: Annotated[int, typer.Option(min=64, help="How many pictures.")] = 128,
) -> None:
    """Draw pictures by the unfinished base model, and measure them."""
    text_encoder, tokenizer, unet = parts.load_parts(work / "pretrained")
    heads = LayoutHeads(unet)
    fitted = work / "state" / "base" / f"{SECOND.name}.pt"
    step = unfinished_average(fitted, nn.ModuleDict({"unet": unet, "text_encoder": text_encoder, "heads": heads}))
    heads.remove()
    vae = AutoencoderKL.from_pretrained(work / "autoencoder", local_files_only=True)
    with tempfile.TemporaryDirectory() as folder:
        assemble(vae, text_encoder, tokenizer, unet, SECOND).save_pretrained(folder)
        requests = pairs.draw_requests(pairs.combinations()[1], count, seed=51)
        made = pairs.protocol_pictures(parts.load_finished(Path(folder)), [request.caption for request in requests])
    parts.write_grid(made[: parts.GRID**2], work / f"base-{step:06d}.png")
    rates = pairs.rates(requests, Checker.load(checker).measure(made.float() / 127.5 - 1))
    Terminal().print(
        f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in rates.items()), highlight=False
    )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
