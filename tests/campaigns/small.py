"""Small runs in forks of a process that has imported everything once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from launches import results

from tests.fuzz import worker

__all__ = ["Log", "results", "run_words", "start"]


class Log:
    """What a campaign has done, one JSON object per line; the same command goes on after it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "done.jsonl"
        self.done: list[dict[str, Any]] = []
        if self._path.exists():
            self.done = [json.loads(line) for line in self._path.read_text().splitlines()]

    def add(self, **fields: Any) -> None:
        self.done.append(fields)
        with self._path.open("a") as stream:
            stream.write(json.dumps(fields) + "\n")
        sys.stdout.write(json.dumps(fields)[:1500] + "\n")
        sys.stdout.flush()


def run_words(runs: Path, name: str, *, steps: int) -> list[str]:
    """A run of the tiny model with two prompts, and a checkpoint after every step."""
    prompts = runs.parent / "prompts.txt"
    if not prompts.exists():
        prompts.write_text("a bee on a red background\na cat on a blue background\n")
    settings = (f"steps={steps}", "global_batch_size=4", "micro_batch_size=2", "checkpoint_seconds=0", "warmup_steps=0")
    return [
        "run", "--algo", "dpo", "--model", "tiny", "--limit", "8", "--prompts", str(prompts), "--name", name, "--sampling-steps", "1",
        "--metrics", "aesthetic", "--runs", str(runs), *[f"--set={setting}" for setting in settings],
    ]  # fmt: skip


def start(words: list[str], said: Path) -> int:
    """Start a command in a fork; returns the id of its process.  What it prints goes to a file."""
    worker.import_all()
    command: Callable[[], None] = worker.command()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(stream, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        sys.argv = ["bench", *words]
        command()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
