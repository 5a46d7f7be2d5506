"""What docstrings describe under ``Args:`` and ``Attributes:`` is there, by that name; of public functions, all parameters are."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench

ROOT = Path(__file__).parents[2]
PACKAGES = ("bench", "algorithms", "metrics", "reports")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SECTION = r"^{}:\n((?:    .*\n|\n)+)"


def described(node: ast.AST, section: str) -> list[str]:
    """Names that a section of the docstring describes."""
    text = inspect.cleandoc(ast.get_docstring(node) or "") + "\n"  # type: ignore[arg-type]
    found = re.search(SECTION.format(section), text, re.MULTILINE)
    return re.findall(r"^    \*{0,2}(\w+)(?: \(.*?\))?: ", found[1], re.MULTILINE) if found else []


def parameters(function: ast.FunctionDef) -> set[str]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in named if argument is not None}


def attributes(owner: ast.ClassDef) -> set[str]:
    """Names that the body of a class or its methods bind."""
    names = {node.name for node in owner.body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(owner):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def stale(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield from (f"{node.name}({name})" for name in described(node, "Args") if name not in parameters(node))
        if isinstance(node, ast.ClassDef):
            begin = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
            known = set().union(*map(parameters, begin)) if begin else attributes(node)
            yield from (f"{node.name}({name})" for name in described(node, "Args") if name not in known)
            yield from (f"{node.name}.{name}" for name in described(node, "Attributes") if name not in attributes(node))


def public_functions(path: Path) -> Iterator[ast.FunctionDef]:
    """Functions and methods of what `bench` exports, and all of algorithms and metrics."""
    package, *_ = path.relative_to(ROOT).parts
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for owner in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(owner, ast.FunctionDef | ast.ClassDef):
            continue
        if package in ("algorithms", "metrics") or bench._MODULE_OF.get(owner.name) == module:
            yield from (
                [owner]
                if isinstance(owner, ast.FunctionDef)
                else (node for node in owner.body if isinstance(node, ast.FunctionDef))
            )


def left_out(function: ast.FunctionDef) -> Iterator[str]:
    """Parameters that are neither among those that ``Args:`` describes nor named in the text."""
    text, known = ast.get_docstring(function) or "", described(function, "Args")
    for name in parameters(function) - {"self", "cls"}:
        if known and name not in known and f"``{name}``" not in text:
            yield f"{function.name}({name})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_public_function_that_describes_its_parameters_describes_all(path: Path) -> None:
    assert [name for function in public_functions(path) for name in left_out(function)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_described_names_exist(path: Path) -> None:
    assert list(stale(path)) == []
