"""Runs the command line in forks of a process that has already imported what commands need, since importing takes seconds."""

from __future__ import annotations

import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch


@functools.cache
def started() -> multiprocessing.context.ForkServerContext:
    """Starts the fork server; it finds `imported` through the environment's path."""
    forkserver.set_forkserver_preload(["imported"])
    with patch.dict(
        os.environ, {"PYTHONPATH": str(Path(__file__).parent), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ):
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


def run(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command line with some arguments in a folder, and wait for it to exit.

    As in a new process, a ``sitecustomize.py`` on the environment's PYTHONPATH runs first.
    """
    with tempfile.TemporaryDirectory() as spoken:
        out, err = Path(spoken, "out"), Path(spoken, "err")
        process = started().Process(target=_main, args=(words, folder, dict(environment), out, err))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(list(words), process.exitcode, out.read_text(), err.read_text())


def _main(words: Sequence[str], folder: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    assert "imported" in sys.modules, "the server has imported nothing"
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    added = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place not in ("", *sys.path)]
    sys.path[:0] = added
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    sys.argv = ["bench", *words]
    for custom in (Path(place, "sitecustomize.py") for place in added):
        if custom.exists():
            runpy.run_path(str(custom))
    from bench.cli.main import main

    main()
