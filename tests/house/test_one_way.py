"""What comes from strangers goes through one function of each kind; nobody goes around it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.test_sizes import FILES, ROOT

WAYS = {
    "Image.open": {"bench/core/images.py"},
    "pq.read_table": {"bench/tiny/flip.py", "bench/tiny/quality.py"},  # of the tiny world's pairs
    "pq.ParquetFile": {"bench/core/parquet.py"},
    "pq.read_metadata": {"bench/core/parquet.py"},
    "pq.read_schema": {"bench/scoring/folder.py"},  # of a table that this command wrote, which is a file
    "Console": {"bench/core/terminal.py"},
    # `this_device` leaves no TF32; the others pass it to accelerate after `full_precision`, or only say what there is
    "torch.cuda.is_available": {
        "bench/core/precision.py",
        "bench/cli/profile.py",
        "bench/training/distributed/launch.py",
        "bench/cli/doctor.py",
        "bench/records/environment.py",
    },
    "print": set(),
    "Environment": {"reports/page.py", "metrics/official/legacy.py"},  # Jinja's, and that of isolated metrics
    "pickle.load": set(),
    "pickle.loads": set(),
    "eval": set(),
    "exec": set(),
    "os.system": set(),
}
"""Calls that open, print or run, each with the files that may make it."""


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@functools.cache
def called_in(path: Path) -> frozenset[str]:
    return frozenset(calls(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("call", WAYS)
def test_one_way(call: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix() for path in FILES if "building" not in path.parts and call in called_in(path)
    }
    assert found <= WAYS[call], f"{call} goes around the function for it"


READS = {"read_text", "read_bytes", "open"}
READERS = {
    "bench/core/inputs.py", "bench/core/files.py", "bench/core/manifest.py", "bench/core/images.py",
    "bench/core/locks.py", "bench/core/parquet.py",
}  # fmt: skip
"""They look at a file before they open it."""
CHECKED = {
    "bench/prompts/tables.py": "bounded",
    "bench/data/sources/jsonl.py": "bounded",
    "bench/data/sources/__init__.py": "is_file",
    "bench/data/sources/base.py": "is_file",
    "bench/data/sources/parquet.py": "opened",
    "bench/evaluation/weights.py": "is_file",
    "bench/models/checkpoints/adapters.py": "is_file",
    "bench/scoring/folder.py": "is_file",
    "metrics/checkpoints.py": "is_file",
    "bench/core/digests.py": "is_file",
    "bench/records/bundle.py": "regular",
    "bench/records/states.py": "regular",
    "bench/records/tails.py": "regular",
}
"""Files that read on their own, with the check that they make."""
OWN = {
    "bench/__init__.py", "bench/core/code.py", "bench/core/packages.py", "bench/core/termination.py", "bench/data/comparing.py",
    "bench/data/row_cache.py", "bench/data/survey.py", "bench/experiments/executors/local.py", "bench/experiments/executors/slurm_job.py", "bench/scoring/isolated/environment.py", "bench/tiny/build.py",
    "bench/tiny/quality.py", "bench/training/distributed/launch.py", "bench/training/ledger.py", "metrics/gold.py",
    "metrics/official/legacy.py", "metrics/onednn.py", "reports/published.py",
}  # fmt: skip
"""They read or write files of the package, of the machine or of this command."""


def test_files_are_looked_at_before_they_are_opened() -> None:
    for path in FILES:
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        if "building" in path.parts or name in READERS | OWN:
            continue
        reads = {call for call in called_in(path) if call.rpartition(".")[2] in READS and "." in call}
        if reads:
            assert name in CHECKED, f"{name} reads files ({', '.join(reads)}); use bench.core.inputs"
            assert CHECKED[name] in text
