"""The figures of how reliably the tiny world ranks methods."""

from __future__ import annotations

import runpy
from typing import Any

import numpy as np
import pytest
from pages import DOCS

RELIABILITY: dict[str, Any] = runpy.run_path(str(DOCS / "reliability.py"))


def test_halves_agree_where_rows_differ_on_every_prompt() -> None:
    means = np.arange(5.0)[:, None] + np.random.default_rng(0).normal(0, 0.01, (5, 40))
    assert RELIABILITY["between_halves"](means, 20) == pytest.approx(np.ones(20))


def test_halves_of_noise_agree_by_chance() -> None:
    found = RELIABILITY["between_halves"](np.random.default_rng(0).normal(size=(12, 200)), 400)
    assert abs(found.mean()) < 0.5  # halves of one draw share its mean, so they lean against each other
    assert found.std() > 0.1


def test_orders_by_seeds() -> None:
    by_row = {"a": np.array([[1.0, 3.0], [5.0, 5.0]]), "b": np.array([[4.0, 2.0], [0.0, 0.0]]), "c": np.ones((2, 2))}
    assert RELIABILITY["orders"](by_row, ["a", "b"]) == [((0,), ["b", "a"]), ((1,), ["a", "b"])]
