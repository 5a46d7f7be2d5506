"""Runs that are killed at any moment and started again, bit-identical.  ``python -m tests.campaigns.kills FOLDER [KILLS]``"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from tests.campaigns.small import Log, results, run_words, start

IN_A_ROW = 6
"""Kills of one run before it may end."""


def main() -> None:
    folder, kills = Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 90
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="1")
    log, straight, runs = Log(folder), folder / "straight", folder / "runs"
    if not log.done:
        # The first run reads the program from a cold disk; by its time later ones would often end before they are killed.
        for _ in range(2):
            shutil.rmtree(straight, ignore_errors=True)
            seconds, code = _run(straight, folder, kill_after=None)
            assert code == 0, (folder / "said.txt").read_text()
        log.add(seconds=seconds, kills=0)
    seconds, wanted = log.done[0]["seconds"], results(straight)
    while (killed := sum(line["kills"] for line in log.done)) < kills:
        shutil.rmtree(runs, ignore_errors=True)
        rng, moments = random.Random(len(log.done)), []  # noqa: S311 (moments, not secrets)
        while len(moments) < min(IN_A_ROW, kills - killed):
            moment = rng.uniform(0, seconds)
            _, code = _run(runs, folder, kill_after=moment)
            if code != -signal.SIGKILL:  # it had ended before
                break
            moments.append(round(moment, 2))
        _, last = _run(runs, folder, kill_after=None)
        said = (folder / "said.txt").read_text()[-500:] if last else ""
        log.add(kills=len(moments), moments=moments, code=last, identical=results(runs) == wanted, said=said,
                partial=[str(path.relative_to(runs)) for path in runs.rglob("*.partial")])  # fmt: skip
    good = [line for line in log.done[1:] if line["code"] == 0 and line["identical"]]
    sys.stdout.write(f"{killed} kills in {len(log.done) - 1} runs, {len(good)} of which ended bit-identical\n")


def _run(runs: Path, folder: Path, *, kill_after: float | None) -> tuple[float, int]:
    began = time.monotonic()
    child = start(run_words(runs, "mine", steps=4), folder / "said.txt")
    if kill_after is not None:
        while time.monotonic() - began < kill_after:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return time.monotonic() - began, os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(child, signal.SIGKILL)
    return time.monotonic() - began, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main()
