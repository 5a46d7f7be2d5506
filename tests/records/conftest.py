"""Small finished runs, made once through the command line."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import forked
import pyarrow.parquet as pq
import pytest
from shared import linked_copy, made_once

from bench.records.evaluations import Evaluation
from bench.records.runs import RunFolder
from bench.tiny import ASSETS

PAIRS = 12
PROMPTS = 2
SETTINGS = ("steps=2", "global_batch_size=2", "micro_batch_size=2", "checkpoint_seconds=0", "warmup_steps=0")


@dataclasses.dataclass(frozen=True)
class Small:
    """A folder with data, prompts and, under ``runs``, the base model, ``dpo`` and ``smpo``."""

    folder: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def run(self, algorithm: str = "dpo") -> RunFolder:
        (config,) = self.runs.glob(f"tiny/{algorithm}/set-*/seed-0")
        return RunFolder(config)

    def evaluation(self, algorithm: str = "dpo") -> Evaluation:
        folder = RunFolder(self.runs / "tiny" / "base") if algorithm == "base" else self.run(algorithm)
        (evaluation,) = folder.evaluations()
        return evaluation

    def bench(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return forked.run(words, self.folder, environment)

    def train(self, *words: str, algo: str = "dpo") -> subprocess.CompletedProcess[str]:
        sets = [word for setting in SETTINGS for word in ("--set", setting)]
        return self.bench(
            "run", "--algo", algo, "--model", "tiny", "--data", "pairs.parquet", "--prompts", "prompts.txt",
            "--sampling-steps", "2", "--metrics", "aesthetic,gold", *sets, *words,
        )  # fmt: skip


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "small", finish)


def finish(folder: Path) -> None:
    pq.write_table(pq.read_table(ASSETS / "preferences.parquet").slice(0, PAIRS), folder / "pairs.parquet")
    lines = (ASSETS / "prompts.txt").read_text().splitlines()[:PROMPTS]
    (folder / "prompts.txt").write_text("\n".join(lines) + "\n")
    done = Small(folder).train(algo="dpo,smpo")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def small(finished_once: Path, tmp_path: Path) -> Small:
    """A copy of the finished runs whose files are links: replace them, do not write into them."""
    linked_copy(finished_once, tmp_path / "copy")
    return Small(tmp_path / "copy")
