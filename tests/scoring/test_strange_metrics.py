"""Metrics of plug-ins that return something else than scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.core.errors import UserError
from bench.scoring.metric import checked_scores


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ([0.1, 0.2], r"returned \[0.1, 0.2\] \(list\) for 2 images, not a tensor of 2 scores"),
        (None, r"returned None \(NoneType\) for 2 images"),
        ("high", r"returned 'high' \(str\) for 2 images"),
        (0.5, r"returned 0.5 \(float\) for 2 images"),
        (torch.zeros(3), r"returned scores of shape \(3,\) for 2 images"),
        (torch.zeros(2, 1), r"returned scores of shape \(2, 1\) for 2 images"),
        (torch.zeros(2, dtype=torch.int64), "returned a tensor of torch.int64, .* not dense floats"),
        (torch.zeros(2, dtype=torch.complex64), "returned a tensor of torch.complex64"),
        (torch.zeros(2, dtype=torch.bool), "returned a tensor of torch.bool"),
        (torch.zeros(2, device="meta"), "returned a tensor of .* on meta, not dense floats with values"),
        (torch.zeros(2).to_sparse(), "returned a tensor of .*torch.sparse_coo"),
        (torch.tensor([0.5, float("nan")]), "returned the score nan, which is not finite as float32, for image 1 of 2"),
        (
            torch.tensor([float("-inf"), 0.5]),
            "returned the score -inf, which is not finite as float32, for image 0 of 2",
        ),
        (
            torch.tensor([0.5, 1e300], dtype=torch.float64),
            r"returned the score 1e\+300, which is not finite as float32, for image 1 of 2",
        ),
    ],
)
def test_what_is_not_a_score_is_named(value: Any, part: str) -> None:
    with pytest.raises(UserError, match=f"metric 'odd' {part}"):
        checked_scores("odd", value, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_any_width_are_scores(dtype: torch.dtype) -> None:
    assert checked_scores("odd", torch.tensor([0.5, -2.0], dtype=dtype), 2) == [0.5, -2.0]
