"""Several processes of which one fails, at every stage; the same command continues.  ``python -m tests.campaigns.launches FOLDER``

Each chain is one run: launch after launch fails in a later stage, and the last one must end bit-identical to a run in which none
failed.  What is done is in FOLDER/done.jsonl, so the same command resumes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from launches import launch, results, run_words

STAGES = ("EVALUATION", "SCORING", "PREPARATION", "STEP")
CHAINS: dict[str, tuple[int, list[str]]] = {
    **{f"{act}-{rank}": (2, [f"{rank}:{stage}:{act}" for stage in STAGES]) for act in ("kill", "raise", "stop") for rank in (1, 0)},
    "full": (2, [f"0:{stage}:full" for stage in STAGES]),  # so few images are one chunk, which process 0 writes
    "term": (2, [f"1:{stage}:term" for stage in STAGES]),
    "int": (2, [f"0:{stage}:int" for stage in STAGES]),
    "three": (3, ["2:EVALUATION:stop", "0:SCORING:kill", "2:PREPARATION:raise", "1:STEP:kill", "2:STEP:stop"]),
    "nan": (2, ["1:STEP:nan"]),
}  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "done.jsonl"
    done = {tuple(json.loads(line)["what"]) for line in log.read_text().splitlines()} if log.exists() else set()
    for name, (processes, failures) in CHAINS.items():
        straight, runs = folder / f"straight-{processes}", folder / name
        for runs_folder, fail in [(straight, ""), *((runs, fail) for fail in failures), (runs, "")]:
            what = (runs_folder.name, fail)
            if what in done:
                continue
            began = time.monotonic()
            ended = launch(run_words(folder, runs_folder), folder, processes=processes, fail=fail or "-1::")
            line = {"what": what, "seconds": round(time.monotonic() - began), "codes": ended.codes}
            try:
                line |= {"last": ended.last} if fail else {"code": ended.returncode}
            except AssertionError:
                line |= {"wrong": ended.stderr}
            if not fail and runs_folder == runs:
                line["identical"] = results(runs) == results(straight)
            with log.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
            done.add(what)
            sys.stdout.write(json.dumps(line)[:1500] + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
