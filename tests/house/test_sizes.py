"""Files, functions and parameter lists stay small enough to be read in one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("bench", "algorithms", "metrics", "reports")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

MOST_LINES = 300
LONGEST_FUNCTION = 60
LONGEST_LOOP = 80
LOOPS = {"bench/training/loop.py:train", "bench/evaluation/loop.py:evaluate"}
MOST_PARAMETERS = 8
COMMANDS = {
    "bench/cli/report.py:report",
    "bench/cli/run.py:run",
    "bench/cli/plan.py:plan",
    "bench/cli/evaluate.py:eval_",
    "bench/cli/data.py:rank",
    "bench/cli/reward.py:reward",
}
"""Commands with many options, each of which is a parameter."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: Function, *, command: bool) -> int:
    """Lines from ``def`` to the end; of a command without its signature, which lists the options."""
    begin = function.body[0].lineno if command else function.lineno
    return (function.end_lineno or begin) - begin + 1


def parameters(function: Function) -> int:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_sizes(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES, f"{name(path)} has {lines} lines"
    for function in functions(path):
        place = f"{name(path)}:{function.name}"
        most = LONGEST_LOOP if place in LOOPS else LONGEST_FUNCTION
        command = place in COMMANDS
        long = length(function, command=command)
        assert long <= most, f"{place} has {long} lines"
        if not command:
            assert parameters(function) <= MOST_PARAMETERS, f"{place} has {parameters(function)} parameters"
