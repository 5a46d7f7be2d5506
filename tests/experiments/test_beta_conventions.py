from __future__ import annotations

from pathlib import Path

import pytest
import torch

from algorithms.dpo import dpo_loss
from algorithms.smpo import SmPO, smpo_loss
from bench import PairErrors, UserError
from bench.experiments.beta import CONVENTIONS, find, markdown
from bench.training.algorithm import ALGORITHMS

DOCS = Path(__file__).parents[2] / "docs" / "beta.md"
MARGIN = 0.185
"""Of mean errors over 2 elements; the first pair of examples.json."""


@pytest.mark.parametrize(
    ("name", "beta", "here"),
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
def test_a_published_beta_in_this_projects_convention(name: str, beta: float, here: float) -> None:
    assert find(name).converted(beta, elements=None) == pytest.approx(here)


@pytest.mark.parametrize(
    ("beta", "elements", "here"),
    # beta_sum = beta / (2 x elements): 4x64x64 and 4x128x128 latents, and the fixture's two elements.
    [(0.06103515625, 16384, 2000), (0.152587890625, 16384, 5000), (0.03814697265625, 65536, 5000), (5, 2, 20)],
)
def test_a_beta_of_sums_in_this_projects_convention(beta: float, elements: int, here: float) -> None:
    assert find("dpo-paper").converted(beta, elements) == pytest.approx(here)
    assert find("dpo-paper-eq46").converted(2 * beta, elements) == pytest.approx(here)


@pytest.mark.parametrize("name", list(CONVENTIONS))
def test_the_argument_of_the_sigmoid_is_the_same_in_both(name: str) -> None:
    convention = find(name)
    scale = {"mean": 1, "sum": 2}[convention.reduction]
    argument = convention.factor * 4 * scale * MARGIN
    zero, margin = torch.zeros(1, dtype=torch.float64), torch.tensor([MARGIN], dtype=torch.float64)
    loss = dpo_loss(PairErrors(zero, margin, zero, zero), beta=convention.converted(4, elements=2))
    assert loss.exp().sub(1).log().neg().item() == pytest.approx(argument, abs=1e-12)


@pytest.mark.parametrize("name", ["dpo-paper", "dpo-paper-eq46"])
def test_sums_ask_for_the_number_of_elements(name: str) -> None:
    with pytest.raises(UserError, match="add their number, --elements 16384 for SD 1.5"):
        find(name).converted(1, elements=None)


def test_an_unknown_convention_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown convention 'difusers-sd15': did you mean 'diffusers-sd15'"):
        find("difusers-sd15")


def test_a_convention_is_for_those_algorithms_whose_beta_multiplies_the_same() -> None:
    assert find("kto").users() == {"kto": 0.5}
    assert find("dspo-sd15").users() == {"dspo": 0.5}
    margin = find("diffusion-dpo").users()
    assert margin["smpo"] == 5.0
    assert {"dpo", "hinge", "inpo"} <= margin.keys()
    assert not {"dspo", "kto", "simpo", "cpo", "mapo", "mapo-v1", "orpo", "ipo", "sft"} & margin.keys()


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_a_stated_scale_is_that_of_the_loss(name: str) -> None:
    """Whoever states what its beta multiplies has a field ``beta``, and the margin's is in the formula."""
    kind = ALGORITHMS.get(name)
    if kind.info.beta is None:
        assert "beta/2" not in kind.info.formula
        return
    assert "beta" in kind.model_fields
    assert "beta/2" in kind.info.formula


def test_the_factor_of_smpo_is_that_of_its_loss() -> None:
    zero, margin = torch.zeros(1, dtype=torch.float64), torch.tensor([MARGIN], dtype=torch.float64)
    loss = smpo_loss(PairErrors(zero, margin, zero, zero), torch.ones(1), beta=4, gamma=SmPO().gamma)
    scale = SmPO.info.beta
    assert scale is not None
    assert loss.exp().sub(1).log().neg().item() == pytest.approx(scale.factor * 4 * MARGIN, abs=1e-12)


@pytest.mark.parametrize("beta", [0.0, -5.0, float("inf"), float("nan"), float("-inf"), 1e308])
def test_what_is_not_a_finite_number_above_0_is_refused(beta: float) -> None:
    with pytest.raises(UserError, match="a beta is a finite number above 0"):
        find("smpo").of_algorithms(beta, None)


def test_the_docs_hold_the_table() -> None:
    assert markdown() in DOCS.read_text()
