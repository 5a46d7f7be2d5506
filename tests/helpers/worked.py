"""Helpers for numbers computed by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench import PairErrors


def double(values: Any) -> Tensor:
    """Values in float64."""
    return torch.tensor(values, dtype=torch.float64)


def assert_exact(actual: Tensor, expected: object) -> None:
    """Assert equality to within 1e-9."""
    torch.testing.assert_close(actual, double(expected), rtol=0, atol=1e-9)


F1 = PairErrors(double([0.10, 0.20]), double([0.30, 0.25]), double([0.12, 0.18]), double([0.28, 0.26]))
"""Policy winner, policy loser, reference winner, reference loser; DPO's logits at beta 10 are 0.2 and -0.15."""

FIXTURE = PairErrors(double([0.025, 0.025]), double([0.16, 0.25]), double([0.09, 0.09]), double([0.04, 0.04]))
"""Errors of the two pairs of the first specification; margins 0.185 and 0.275."""
