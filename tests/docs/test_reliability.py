"""How far prompts and seeds decide the order of a report's rows."""

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
    draws = [np.random.default_rng(seed).normal(size=(12, 200)) for seed in range(30)]
    found = [RELIABILITY["between_halves"](means, 20).mean() for means in draws]
    assert abs(np.mean(found)) < 0.15


def test_orders_are_by_seeds_that_all_rows_have() -> None:
    by_row = {
        "a": {1: np.array([1.0, 3.0]), 2: np.array([5.0, 5.0]), 7: np.array([9.0, 9.0])},
        "b": {2: np.array([0.0, 0.0]), 1: np.array([4.0, 2.0])},
    }
    assert RELIABILITY["orders"](by_row) == [((1,), ["b", "a"]), ((2,), ["a", "b"])]
