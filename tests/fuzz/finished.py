"""A finished run of the version under test, made once per campaign."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.fuzz.versions import one_step
from tests.fuzz.worker import command


def finish_run(folder: Path, assets: Path) -> Path:
    """Train one step on the tiny model, in a fork, and return the runs folder; beside it a bundle of it, where there are bundles."""
    pq.write_table(
        pq.read_table(assets / "preferences.parquet", use_threads=False).slice(0, 16), folder / "pairs.parquet"
    )
    (folder / "prompts.txt").write_text("a red bee on blue\na cat on green\n")
    words = ["run", "--algo", "dpo", "--model", "tiny", "--name", "one", "--data", "pairs.parquet", "--prompts", "prompts.txt",
             "--metrics", "aesthetic", "--sampling-steps", "2", *one_step()]  # fmt: skip
    if status := _status(folder, words):
        raise RuntimeError(f"bench {' '.join(words)} ended with {status}")
    if importlib.util.find_spec("bench.core") is not None and (status := _status(folder, ["bundle", "one.tar"])):
        raise RuntimeError(f"bench bundle ended with {status}")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder.chmod(0o755)
    return folder / "runs"


def _status(folder: Path, words: list[str]) -> int:
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        sys.argv = ["bench", *words]
        code = 1
        try:
            command()()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
