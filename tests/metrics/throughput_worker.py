"""The official packages' ordinary calls, picture by picture: a scorer file for `bench.scoring.isolated.worker`, see `throughput.py`."""

from __future__ import annotations

import functools
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

OFFICIAL = Path(__file__).parents[2] / "metrics" / "official"


def load(*, scorer: str, **arguments: Any) -> Callable[[list[str], list[str]], list[float]]:
    """As the worker file of that name loads it."""
    return {"hpsv2": ordinary_hpsv2, "imagereward": imagereward}[scorer](**arguments)


def ordinary_hpsv2(*, device: str, weights: str) -> Callable[[list[str], list[str]], list[float]]:
    """`hpsv2.score` for every picture, which reads the checkpoint every time."""
    import torch

    read = torch.load
    runpy.run_path(str(OFFICIAL / "hpsv2_worker.py"))["load"](device=device, weights=weights)
    torch.load = read
    from hpsv2 import img_score

    one = functools.partial(img_score.score, cp=weights, hps_version="v2.1")
    return lambda images, prompts: [one(image, prompt)[0] for image, prompt in zip(images, prompts, strict=True)]


def imagereward(**arguments: Any) -> Callable[[list[str], list[str]], list[float]]:
    """``score`` for every picture, as the worker file already calls it."""
    score: Callable[[list[str], list[str]], list[float]]
    score = runpy.run_path(str(OFFICIAL / "imagereward_worker.py"))["load"](**arguments)
    return score
