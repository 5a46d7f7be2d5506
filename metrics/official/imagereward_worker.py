"""Runs in the environment of `metrics.official.legacy`; does not import this package."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def load(
    *, device: str, weights: str, med_config: str, vocabulary: str
) -> Callable[[list[str], list[str]], list[float]]:
    """`ImageReward.load(...).score` with local files."""
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    import ImageReward
    import torch

    torch.load = functools.partial(torch.load, weights_only=True)
    with tempfile.TemporaryDirectory() as folder:
        # The package asks for the tokenizer by this name, which transformers first looks for in the working folder.
        tokenizer = Path(folder) / "bert-base-uncased"
        tokenizer.mkdir()
        shutil.copy(vocabulary, tokenizer / "vocab.txt")
        before = Path.cwd()
        os.chdir(folder)
        try:
            model = ImageReward.load(weights, device=device, med_config=med_config)
        finally:
            os.chdir(before)

    def score(images: list[str], prompts: list[str]) -> list[float]:
        with torch.no_grad():
            return [model.score(prompt, image) for image, prompt in zip(images, prompts, strict=True)]

    return score
