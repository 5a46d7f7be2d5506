"""What `bench` exports: each name says what it is."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
from pathlib import Path
from types import FunctionType

import pytest

import bench

DESCRIBED = (FunctionType, property, classmethod, staticmethod)


def described_values(module: str) -> set[str]:
    """Names of a module's values that a string below them describes."""
    source = Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8")
    body = ast.parse(source).body
    named: set[str] = set()
    for assignment, below in itertools.pairwise(body):
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            targets = (
                assignment.targets if isinstance(assignment, ast.Assign) else [getattr(assignment, "target", None)]
            )
            named |= {target.id for target in targets if isinstance(target, ast.Name)}
    return named


@pytest.mark.parametrize("name", bench.__all__)
def test_a_public_name_says_what_it_is(name: str) -> None:
    value = getattr(bench, name)
    if not inspect.isclass(value) and not inspect.isfunction(value):
        assert name in described_values(bench._MODULE_OF[name])
        return
    assert value.__doc__
    if inspect.isclass(value):
        own = [key for key, member in vars(value).items() if not key.startswith("_") and isinstance(member, DESCRIBED)]
        assert [key for key in own if not inspect.getdoc(getattr(value, key))] == []


def test_a_name_that_is_not_public_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="module 'bench' has no attribute 'Ledger'"):
        bench.Ledger  # noqa: B018
