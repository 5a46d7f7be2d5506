"""Seconds and memory of `bench status` and `bench report` by the number of runs.  ``python -m tests.campaigns.many_runs FOLDER``

Writes synthetic runs (five seeds of each configuration, 50 prompts, three metrics) into FOLDER, and prints one line per command
and count: CPU seconds, wall seconds and peak memory.  Needs the same machine to itself only for wall seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))

import lab as runs_of

COUNTS = (50, 500)
SEEDS = 5
PROMPTS = [f"a {thing} number {number} on a red background" for thing in ("bee", "cat") for number in range(25)]
COMMANDS = (("status",), ("report", "--format", "json"))


def write_runs(folder: Path, count: int) -> None:
    """The base model and so many runs."""
    runs_of.PROMPTS[:] = PROMPTS
    made = runs_of.Lab(folder)
    made.protocol = made.protocol.model_copy(
        update={"prompts": runs_of.prompts_digest(PROMPTS), "prompt_count": len(PROMPTS)}
    )
    made.base()
    for number in range(count):
        configuration, seed = divmod(number, SEEDS)
        made.run("dpo", seed, name=f"c{configuration:03}", beta=100.0 + configuration, shift=0.01 * configuration)


def measured(folder: Path, words: tuple[str, ...]) -> dict[str, float]:
    """CPU seconds, wall seconds and peak memory of a command."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *words, "--runs", str(folder)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"bench {' '.join(words)} ended with {process.returncode}")
    return {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "wall_seconds": round(time.monotonic() - began, 2),
        "peak_mb": round(used.ru_maxrss / 1024),
    }


def main() -> None:
    place = Path(sys.argv[1]).absolute()
    for count in COUNTS:
        folder = place / f"runs-{count}"
        if not folder.exists():
            write_runs(folder, count)
        for words in COMMANDS:
            print(json.dumps({"runs": count, "command": words[0], **measured(folder, words)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
