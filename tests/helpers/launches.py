"""Launches of the real command line by accelerate, in which one process fails; see `failing`."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FAILING = Path(__file__).with_name("failing.py")
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0"]
SETTINGS = ("steps=4", "global_batch_size=4", "micro_batch_size=2", "checkpoint_seconds=0", "warmup_steps=0")


@dataclasses.dataclass(frozen=True)
class Launched:
    """How a launch ended.

    Attributes:
        returncode: the launcher's.
        stderr: what the launcher and the processes said.
        codes: the processes' exit codes by number; of those that the launcher killed there is none.
    """

    returncode: int
    stderr: str
    codes: dict[int, int]

    @property
    def last(self) -> str:
        """The last line that bench printed.

        Raises:
            AssertionError: it printed none, or something else of it or of gloo is below.
        """
        lines = self.stderr.splitlines()
        said = [place for place, line in enumerate(lines) if line.startswith(("error: ", "stopped by "))]
        assert len(said) == 1, self.stderr
        below = "\n".join(lines[said[0] + 1 :])
        for own in ("gloo", "/bench/", "/algorithms/", "waiting: "):
            assert own not in below, self.stderr
        return lines[said[0]]


def launch(words: Sequence[str], folder: Path, *, processes: int = 2, fail: str = "-1::") -> Launched:
    """Launch the command line in a folder and wait for its end; ``fail`` is ``RANK:STAGE:ACT``."""
    for old in folder.glob("code-*"):
        old.unlink()
    done = subprocess.run(
        [*LAUNCH, "--num_processes", str(processes), str(FAILING), str(folder), *words],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "FAIL": fail},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    codes = {int(path.name.removeprefix("code-")): int(path.read_text()) for path in folder.glob("code-*")}
    return Launched(done.returncode, done.stderr, codes)


def run_words(folder: Path, runs: Path) -> list[str]:
    """A small run of the tiny model with checkpoints after every step."""
    prompts = folder / "prompts.txt"
    prompts.write_text("a bee on a red background\na cat on a blue background\na dog on a red background\n")
    sets = [f"--set={setting}" for setting in SETTINGS]
    return [
        "run", "--algo", "dpo", "--model", "tiny", "--limit", "8", "--prompts", str(prompts), "--name", "mine",
        "--sampling-steps", "1", "--metrics", "aesthetic", "--runs", str(runs), *sets,
    ]  # fmt: skip


def results(runs: Path) -> dict[str, bytes]:
    """Weights, images and scores by path."""
    kinds = ("*.safetensors", "*.png", "scores.jsonl")
    found = {str(path.relative_to(runs)): path.read_bytes() for kind in kinds for path in runs.rglob(kind)}
    return {path: content for path, content in found.items() if "checkpoints" not in path}
