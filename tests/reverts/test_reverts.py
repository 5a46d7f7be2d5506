"""Every fix of issues 14 and 17 is held by a test: with the fix alone taken back, that test fails for the stated reason.

All of them take most of an hour: ``pytest -m slow tests/reverts``; ``-k checkpoint`` chooses those whose name holds the word.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("bench", "algorithms", "metrics", "reports", "tests", "docs", "pyproject.toml", "README.md", "CHANGELOG.md")
LISTS = {"14": "reverts.toml", "17": "hostile.toml"}
READ = {issue: tomllib.loads(Path(__file__).with_name(name).read_text())["revert"] for issue, name in LISTS.items()}
REVERTS: list[dict[str, str]] = [
    {**revert, "line": f"{issue}.{revert['line']}"} for issue, reverts in READ.items() for revert in reverts
]
NAMES = [revert["line"] for revert in REVERTS]


@pytest.mark.parametrize("revert", REVERTS, ids=NAMES)
def test_what_is_taken_back_is_there_once(revert: dict[str, str]) -> None:
    assert (ROOT / revert["file"]).read_text(encoding="utf-8").count(revert["old"]) == 1


def test_every_line_of_the_issue_is_held() -> None:
    lines = {"14": range(1, 10), "17": range(1, 11)}
    assert {name.partition(":")[0] for name in NAMES} == {f"{issue}.{line}" for issue in lines for line in lines[issue]}


@pytest.mark.slow
@pytest.mark.parametrize("revert", REVERTS, ids=NAMES)
def test_the_test_fails_without_the_fix(revert: dict[str, str], tmp_path: Path) -> None:
    package, _, release = revert.get("needs", "").partition(" ")
    if package and int(version(package).split(".")[0]) < int(release):
        pytest.skip(f"older versions of {package} do the same with and without the fix")
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tmp_path / name, copy_function=os.link, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    file = tmp_path / revert["file"]
    content = file.read_text(encoding="utf-8")
    file.unlink()  # it is a link
    file.write_text(content.replace(revert["old"], revert["new"]), encoding="utf-8")

    words = ["-q", "-x", "-m", "", "-p", "no:cacheprovider", "-c", "pyproject.toml", "--rootdir", ".", revert["test"]]
    words += ["-k", revert["select"]] if "select" in revert else []
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout[-4000:] + done.stderr[-1000:]
    assert re.search(revert["says"], done.stdout), done.stdout[-4000:]
