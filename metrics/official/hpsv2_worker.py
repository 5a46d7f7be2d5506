"""Runs in the environment of `metrics.official.legacy`; does not import this package."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(*, device: str, weights: str) -> Callable[[list[str], list[str]], list[float]]:
    """`hpsv2.score` with a local checkpoint."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the package takes a GPU if it sees one
    complete_installation()
    import torch
    from hpsv2 import img_score

    create = img_score.create_model_and_transforms
    # Without the weights that the checkpoint replaces, 3.9 GB from the hub.
    img_score.create_model_and_transforms = lambda name, _pretrained, **rest: create(name, None, **rest)
    # Every call of score reads the checkpoint again.
    read: Any = functools.lru_cache(maxsize=1)(functools.partial(torch.load, weights_only=True))
    torch.load = read

    def score(images: list[str], prompts: list[str]) -> list[float]:
        scores: dict[int, float] = {}
        for prompt in dict.fromkeys(prompts):
            places = [place for place, each in enumerate(prompts) if each == prompt]
            answers: list[Any] = img_score.score([images[place] for place in places], prompt, cp=weights)
            scores.update(zip(places, answers, strict=True))
        return [scores[place] for place in range(len(images))]

    return score


def complete_installation() -> None:
    """Add the two things without which the package cannot be imported."""
    # It imports turtle, and thus tkinter, which many Pythons lack, and uses neither.
    sys.modules["turtle"] = types.SimpleNamespace(forward=None)  # type: ignore[assignment]
    # Its wheel lacks the vocabulary; clip-anytorch has the same file.
    vocabulary = package("hpsv2") / "src" / "open_clip" / "bpe_simple_vocab_16e6.txt.gz"
    if not vocabulary.exists():
        beside = vocabulary.with_suffix(f".{os.getpid()}")
        shutil.copy(package("clip") / vocabulary.name, beside)
        beside.replace(vocabulary)


def package(name: str) -> Path:
    """The folder of an installed package."""
    found: Any = importlib.util.find_spec(name)
    return Path(found.origin).parent
