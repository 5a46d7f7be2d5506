"""How much faster ``--jobs 2`` is than one run after another, in pairs.  ``python -m tests.campaigns.jobs_in_pairs FOLDER [PAIRS]``

Each pair runs the same four small runs three times from nothing: two at a time with one thread each, one after another with one
thread, and one after another with two threads.  Prints the seconds and the two ratios of each pair.  Needs two idle cores.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

FILE = """\
model = "tiny"
prompts = "prompts.txt"
metrics = ["aesthetic"]
seeds = [0, 1]
limit = 64
settings = { steps = 40, global_batch_size = 16, micro_batch_size = 16 }

[[algorithms]]
name = "dpo"

[[algorithms]]
name = "sft"
"""
WAYS = {
    "two at a time": ("--jobs", "2", "--resource", "threads=1"),
    "one thread": ("--jobs", "1", "--resource", "threads=1"),
    "two threads": ("--jobs", "1", "--resource", "threads=2"),
}


def seconds(folder: Path, words: tuple[str, ...]) -> float:
    """Wall seconds of the whole study, from an empty folder of runs."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "bench", "run", "pairs.toml", *words],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    return round(time.monotonic() - began, 1)


def main() -> None:
    folder, count = Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.toml").write_text(FILE)
    (folder / "prompts.txt").write_text(
        "".join(f"a bee on a {colour} background\n" for colour in ("red", "blue", "gray"))
    )
    for _ in range(count):
        took = {way: seconds(folder, words) for way, words in WAYS.items()}
        ratios = {way: round(took[way] / took["two at a time"], 2) for way in ("one thread", "two threads")}
        print(json.dumps({"seconds": took, "times as fast as": ratios}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
