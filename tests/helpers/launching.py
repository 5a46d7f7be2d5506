"""Trains the micro model in separate processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from workshop import Workshop

from bench.records.runs import RunFolder

HERE = Path(__file__).parent
ALONE = [sys.executable]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(
    launcher: list[str], workshop: Workshop, runs: Mapping[Path, dict[str, Any]], **environment: str
) -> subprocess.CompletedProcess[str]:
    _ = len(workshop.encoded.posterior([0]))  # encoded once, before the processes need it
    told = json.dumps({str(folder): settings for folder, settings in runs.items()})
    return subprocess.run(
        [*launcher, str(HERE / "processes.py"), str(workshop.folder), told],
        env={
            **os.environ,
            "PYTHONPATH": str(HERE),
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def train(launcher: list[str], workshop: Workshop, folder: Path, **settings: Any) -> RunFolder:
    done = launch(launcher, workshop, {folder: settings})
    assert done.returncode == 0, done.stderr
    return made(folder)


def made(folder: Path) -> RunFolder:
    return RunFolder(folder / "micro" / "algorithm" / "name" / "seed-0")


def weights(run: RunFolder) -> dict[str, Tensor]:
    (file,) = run.weights.glob("*.safetensors")
    return load_file(file)
