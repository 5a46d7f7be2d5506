from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import forked
import pyarrow.parquet as pq
import pytest
from shared import made_once

from bench.tiny import ASSETS

PAIRS = 48
PROMPTS = 6
MANY_PROMPTS = 40  # more than one chunk of the evaluation


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """The real command line in a process of its own, in a folder of its own, with little data and few prompts."""

    folder: Path
    data: Path
    prompts: Path

    def arguments(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "bench", *words]

    def train_words(self, *words: str, runs: str = "runs", algo: str = "dpo") -> list[str]:
        """A short training with these words, and options of its own where none of the words gives them."""
        settings = ("steps=6", "global_batch_size=4", "micro_batch_size=4", "checkpoint_seconds=0", "warmup_steps=0")
        sets = [word for setting in settings for word in ("--set", setting)]
        options = {
            "--algo": algo, "--model": "tiny", "--data": str(self.data), "--prompts": str(self.prompts),
            "--sampling-steps": "2", "--metrics": "aesthetic,gold", "--runs": str(self.folder / runs),
        }  # fmt: skip
        own = [word for option, value in options.items() if option not in words for word in (option, value)]
        return self.arguments("run", *own, *sets, *words)

    def run(self, words: list[str], preexec: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
        if preexec is None and words[:3] == self.arguments():
            return forked.run(words[3:], self.folder, offline())
        return subprocess.run(
            words, cwd=self.folder, env=offline(), capture_output=True, text=True, check=False, preexec_fn=preexec
        )

    def start(self, words: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words, cwd=self.folder, env=offline(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill_after(self, words: list[str], sign: Path) -> None:
        """Start a command, and kill it as soon as a file or folder is there."""
        process = self.start(words)
        try:
            while not sign.exists():
                assert process.poll() is None, "the run ended before"
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()


def offline() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = made_once(tmp_path_factory, "data", write_small_data)
    return folder / "pairs.parquet", folder / "prompts.txt"


@pytest.fixture
def many_prompts(tmp_path: Path, small_data: tuple[Path, Path]) -> CommandLine:
    """The command line with prompts for more than one chunk of the evaluation."""
    return CommandLine(tmp_path, small_data[0], write_prompts(tmp_path / "more-than-a-chunk.txt", MANY_PROMPTS))


def write_small_data(folder: Path, prompts: int = PROMPTS) -> tuple[Path, Path]:
    """A few pairs and evaluation prompts of the tiny world, as files."""
    table = pq.read_table(ASSETS / "preferences.parquet").slice(0, PAIRS)
    pq.write_table(table, folder / "pairs.parquet")
    return folder / "pairs.parquet", write_prompts(folder / "prompts.txt", prompts)


def write_prompts(path: Path, count: int) -> Path:
    path.write_text("\n".join((ASSETS / "prompts.txt").read_text().splitlines()[:count]) + "\n")
    return path


@pytest.fixture
def command(tmp_path: Path, small_data: tuple[Path, Path]) -> CommandLine:
    return CommandLine(tmp_path, *small_data)


@pytest.fixture
def finished(command: CommandLine, uninterrupted: Path) -> Path:
    """The folder of the finished run of `CommandLine.train_words`, copied into the command's own folder."""
    shutil.copytree(uninterrupted, command.folder / "runs")
    (run,) = command.folder.glob("runs/tiny/dpo/*/seed-0")
    return run


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, Path]) -> Path:
    def train(folder: Path) -> None:
        line = CommandLine(folder, *small_data)
        done = line.run(line.train_words())
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "whole", train) / "runs"
