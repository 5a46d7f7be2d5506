from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import bench
from bench.core.files import read_json
from bench.records.environment import write_environment
from bench.records.runs import RunFolder


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_the_packages_and_not_the_working_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "mine")
    monkeypatch.chdir(tmp_path)
    run = RunFolder(tmp_path / "run")
    write_environment(run, 2, {"micro_batch_size": 4})
    written = read_json(run.folder / "environment.json")
    assert (written["processes"], written["execution"]) == (2, {"micro_batch_size": 4})

    package = Path(bench.__file__).parent
    if "site-packages" in package.parts:
        assert written["git"] is None
    else:
        assert written["git"].removesuffix("+") == git(package, "rev-parse", "HEAD")
