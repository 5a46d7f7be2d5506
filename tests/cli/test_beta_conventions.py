from __future__ import annotations

from pathlib import Path

import pytest
import torch

from algorithms.dpo import dpo_loss
from bench import PairErrors, UserError
from bench.cli.beta import CONVENTIONS, find, markdown

DOCS = Path(__file__).parents[2] / "docs" / "beta.md"
MARGIN = 0.185
"""Of mean errors over 2 elements; the first pair of examples.json."""


@pytest.mark.parametrize(
    ("name", "beta", "ours"),
    [
        ("bench", 2000, 2000),
        ("diffusion-dpo", 5000, 5000),
        ("diffusers-sd15", 2500, 5000),
        ("diffusers-sdxl", 5000, 5000),
        ("npo-sd15", 500, 1000),
        ("npo-sdxl", 2000, 2000),
        ("smpo", 2000, 20000),
        ("kto", 1000, 2000),
        ("flow-grpo", 100, 100),
    ],
)
def test_a_published_beta_in_ours(name: str, beta: float, ours: float) -> None:
    assert find(name).to_ours(beta, elements=None) == pytest.approx(ours)


@pytest.mark.parametrize(
    ("beta", "elements", "ours"),
    # beta_sum = beta / (2 x elements): 4x64x64 and 4x128x128 latents, and the fixture's two elements.
    [(0.06103515625, 16384, 2000), (0.152587890625, 16384, 5000), (0.03814697265625, 65536, 5000), (5, 2, 20)],
)
def test_a_beta_of_sums_in_ours(beta: float, elements: int, ours: float) -> None:
    assert find("dpo-paper").to_ours(beta, elements) == pytest.approx(ours)
    assert find("dpo-paper-eq46").to_ours(2 * beta, elements) == pytest.approx(ours)


@pytest.mark.parametrize("name", list(CONVENTIONS))
def test_the_argument_of_the_sigmoid_is_the_same_in_both(name: str) -> None:
    convention = find(name)
    scale = {"mean": 1, "sum": 2}[convention.reduction]
    argument = convention.factor * 4 * scale * MARGIN
    zero, margin = torch.zeros(1, dtype=torch.float64), torch.tensor([MARGIN], dtype=torch.float64)
    loss = dpo_loss(PairErrors(zero, margin, zero, zero), beta=convention.to_ours(4, elements=2))
    assert loss.exp().sub(1).log().neg().item() == pytest.approx(argument, abs=1e-12)


@pytest.mark.parametrize("name", ["dpo-paper", "dpo-paper-eq46"])
def test_sums_ask_for_the_number_of_elements(name: str) -> None:
    with pytest.raises(UserError, match="give their number, --elements 16384 for SD 1.5"):
        find(name).to_ours(1, elements=None)


def test_an_unknown_convention_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown convention 'difusers-sd15': did you mean 'diffusers-sd15'"):
        find("difusers-sd15")


def test_the_docs_hold_the_table() -> None:
    assert markdown() in DOCS.read_text()
