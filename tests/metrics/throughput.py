"""How much faster the native scorers are than the official packages' ordinary calls; run by hand.

    OMP_NUM_THREADS=2 python tests/metrics/throughput.py FOLDER SCORER [--pictures 8] [--prompts 8] [--rounds 2]

Both sides have the same weights, full size and filled from their names, the same pictures of 512x512, the same CPU and the
same number of threads, and take turns; the first official run builds the environment.  FOLDER keeps the weights (hpsv2
3.9 GB, imagereward 1.8 GB) and must hold ``tokenizers`` from ``tox run -e oracle -- FOLDER``.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPModel

sys.path.insert(0, str(Path(__file__).parent))
from filled import PROMPTS, weight

from bench.core.files import write_json
from bench.scoring.isolated.environment import built
from bench.scoring.isolated.worker import Worker
from bench.scoring.metric import Metric
from metrics.checkpoints import Source
from metrics.hpsv2 import VIT_H_14, HPSv2, clip_config, open_clip_source
from metrics.imagereward import BERT_BASE, VIT_L_16, ImageReward, RewardNetwork, blip_source
from metrics.official.legacy import LEGACY

CPU = torch.device("cpu")


def official_weights(network: nn.Module, source: Callable[[str], Source]) -> dict[str, Tensor]:
    """Weights under their official names, filled from them, for a network of ours on the meta device."""
    parts: dict[str, list[torch.Size]] = {}
    for name, value in network.state_dict().items():
        parts.setdefault(source(name)[0], []).append(value.shape)
    tensors = {}
    for name, shapes in parts.items():
        rows = [sum(shape[0] for shape in shapes)] if shapes[0] else []
        shape = (*rows, *shapes[0][1:])  # queries, keys and values are one tensor there
        tensors[name] = weight(name, shape[::-1] if name in ("visual.proj", "text_projection") else shape)
    return tensors


def write_hpsv2(folder: Path, tokenizers: Path) -> dict[str, str]:
    """The checkpoint folder; returns what the official side needs of it."""
    path = folder / "HPS_v2.1_filled.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("vocab.json", "merges.txt"):
            (folder / name).write_bytes((tokenizers / "clip" / name).read_bytes())
        write_json(folder / "open_clip_config.json", {"model_cfg": VIT_H_14})
        with torch.device("meta"):
            network = CLIPModel(clip_config(VIT_H_14))
        torch.save({"state_dict": official_weights(network, open_clip_source)}, path)
    return {"weights": str(path)}


def write_imagereward(folder: Path, tokenizers: Path) -> dict[str, str]:
    """The checkpoint folder; returns what the official side needs of it."""
    path = folder / "ImageReward.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.txt").write_bytes((tokenizers / "bert" / "vocab.txt").read_bytes())
        more = {"encoder_width": 768, "add_cross_attention": True, "type_vocab_size": 2, "pad_token_id": 0}
        write_json(folder / "med_config.json", {"model_type": "bert", **BERT_BASE, **more})
        with torch.device("meta"):
            network = RewardNetwork(VIT_L_16, BERT_BASE)
        torch.save(official_weights(network, blip_source), path)
    files = {"weights": path, "med_config": folder / "med_config.json", "vocabulary": folder / "vocab.txt"}
    return {name: str(file) for name, file in files.items()}


SCORERS: dict[str, tuple[Callable[[Path, Path], dict[str, str]], type[Metric]]] = {
    "hpsv2": (write_hpsv2, HPSv2),
    "imagereward": (write_imagereward, ImageReward),
}


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Pictures of random smooth colours."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{place:03d}.png" for place in range(count)]
    for place, path in enumerate(paths):
        colours = np.random.RandomState(place).randint(0, 256, size=(32, 32, 3)).astype(np.uint8)
        Image.fromarray(colours).resize((512, 512), Image.Resampling.BICUBIC).save(path)
    return paths


@dataclasses.dataclass
class Clock:
    """Seconds of wall and of processor time that calls took in one process; the latter hardly feel a busy machine.

    Attributes:
        process: id of the process that does the work.
    """

    process: int
    wall: float = 0.0
    processor: float = 0.0

    def time(self, call: Callable[[], Any]) -> Any:
        """What a call returns."""
        start, before = time.perf_counter(), self._processor()
        answer = call()
        self.wall += time.perf_counter() - start
        self.processor += self._processor() - before
        return answer

    def _processor(self) -> float:
        times = psutil.Process(self.process).cpu_times()
        return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("scorer", choices=list(SCORERS))
    for name, default in (("pictures", 8), ("prompts", 8), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    write, kind = SCORERS[chosen.scorer]
    files = write(chosen.folder / chosen.scorer, chosen.folder / "tokenizers")
    paths = write_pictures(chosen.folder / "pictures", chosen.pictures)
    prompts = [f"{PROMPTS[place % chosen.prompts % 4]} {place % chosen.prompts}" for place in range(chosen.pictures)]

    native = kind.load(str(chosen.folder / chosen.scorer), device=CPU)
    arguments = {"scorer": chosen.scorer, "device": "cpu", **files}
    python = built("the official scorers", LEGACY).python
    official = Worker("official", python, Path(__file__).with_name("throughput_worker.py"), arguments)
    official.score(paths[:1], prompts[:1])  # loads, and warms up
    native.score([Image.open(paths[0])], prompts[:1])
    assert official._running is not None
    theirs, ours = Clock(official._running.process.pid), Clock(os.getpid())
    for turn in range(1, chosen.rounds + 1):
        expected = theirs.time(lambda: official.score(paths, prompts))
        scores = ours.time(lambda: native.score([Image.open(path).convert("RGB") for path in paths], prompts))
        count, load = turn * len(paths), os.getloadavg()[0]
        print(  # noqa: T201
            f"{chosen.scorer}, {count} images, {len(set(prompts))} prompts, {torch.get_num_threads()} threads, load {load:.1f}: "
            f"wall {theirs.wall / count:.2f} s/image official, {ours.wall / count:.2f} native, "
            f"ratio {theirs.wall / ours.wall:.2f}; "
            f"processor {theirs.processor / count:.2f} official, {ours.processor / count:.2f} native, "
            f"ratio {theirs.processor / ours.processor:.2f}; "
            f"largest difference {np.abs(np.array(expected) - scores.numpy()).max():.1e}",
            flush=True,
        )
    official.stop()


if __name__ == "__main__":
    main()
