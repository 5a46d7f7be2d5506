"""Rounds of runs at once on a cold cache, all bit-identical.  ``python -m tests.campaigns.at_once FOLDER [ROUNDS]``"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.campaigns.small import Log, results, run_words, start

RUNS = ("one", "two", "three", "four")


def main() -> None:
    folder, rounds = Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 50
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="1")
    log = Log(folder)
    for number in range(len(log.done), rounds):
        runs = folder / "runs"
        shutil.rmtree(runs, ignore_errors=True)  # of a round that was cut off
        children = [start(run_words(runs, name, steps=1), folder / f"{name}.txt") for name in RUNS]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        found = {
            name: {
                path.replace(f"/{name}/", "/"): content
                for path, content in results(runs).items()
                if f"/{name}/" in path
            }
            for name in RUNS
        }
        first = folder / "first"
        if number == 0:
            shutil.rmtree(first, ignore_errors=True)
            shutil.copytree(runs, first)
        wanted = {path.replace("/one/", "/"): content for path, content in results(first).items() if "/one/" in path}
        partial = [str(path.relative_to(runs)) for path in runs.rglob("*.partial")]
        log.add(round=number, codes=codes, files=len(wanted), identical=[found[name] == wanted for name in RUNS], partial=partial,
                said=[(folder / f"{name}.txt").read_text()[-300:] for name, code in zip(RUNS, codes, strict=True) if code])  # fmt: skip
    good = sum(
        code == 0 and same for line in log.done for code, same in zip(line["codes"], line["identical"], strict=True)
    )
    sys.stdout.write(f"{good} of {len(RUNS) * len(log.done)} runs ended well and bit-identical\n")


if __name__ == "__main__":
    main()
