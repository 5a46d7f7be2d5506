"""The import rules of pyproject.toml hold, and a module that breaks one of them is found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("bench", "algorithms", "metrics", "reports")
LINT = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The packages and their rules, copied to where a rule may be broken."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(LINT, cwd=folder, capture_output=True, text=True, check=False)


def test_the_rules_hold(checkout: Path) -> None:
    done = lint(checkout)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("bench/core/errors.py", "bench.records.runs", "stages point down"),
        ("algorithms/dpo.py", "bench.training.loop", "algorithms and metrics use the public names"),
        ("algorithms/dpo.py", "bench.tiny.world", "algorithms and metrics use the public names"),
        ("reports/content.py", "bench.models.card", "reports read records"),
        ("reports/content.py", "bench.cli.options", "reports read records"),
        ("bench/core/errors.py", "bench.core.hub", "no circles between the modules of a stage"),
        ("bench/planning/plan.py", "algorithms.dpo", "the harness names no algorithm, no metric and no report"),
    ],
)
def test_a_broken_rule_is_found(checkout: Path, module: str, imported: str, contract: str) -> None:
    path = checkout / module
    # Imports for type checkers alone count too.
    lines = f"\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import {imported}\n"
    path.write_text(path.read_text(encoding="utf-8") + lines, encoding="utf-8")
    done = lint(checkout)
    assert done.returncode == 1, done.stdout
    assert f"{contract} BROKEN" in done.stdout
    assert f".{imported.rpartition('.')[2]}" in done.stdout


def test_a_new_folder_must_say_where_it_stands(checkout: Path) -> None:
    (checkout / "bench" / "attic").mkdir()
    (checkout / "bench" / "attic" / "__init__.py").write_text("")
    done = lint(checkout)
    assert done.returncode == 1, done.stdout
    assert "stages point down BROKEN" in done.stdout
    assert "bench.attic" in done.stdout
