from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "docs" / "algorithm_tables.py")
TABLE = runpy.run_path(SCRIPT)["overview"]()


def test_the_docs_hold_the_table() -> None:
    assert TABLE in (ROOT / "docs" / "algorithms.md").read_text()


def test_the_table_has_every_algorithm_of_this_distribution_and_five_cells_a_row() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["bench.algorithms"]
    rows = [row.replace(r"\|", "").split("|")[1:-1] for row in TABLE.splitlines()[2:]]
    assert {row[0].strip(" `") for row in rows} == ours.keys()
    assert {len(row) for row in rows} == {5}


def test_the_command_prints_it() -> None:
    printed = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    assert printed.stdout == TABLE
