"""Contracts about an algorithm's objective as a function of predictions for pairs, independent of any network."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bench.experiments.contracts.algorithm_case import AlgorithmCase, contract
from bench.experiments.contracts.contract import NotApplicableError, expect
from bench.training.algorithm import Algorithm
from bench.training.pairwise import (
    PairPredictions,
    PairwiseAlgorithm,
    PolicyErrors,
    ReferenceFreeAlgorithm,
    sample_errors,
)

Objective = Callable[[Tensor, Tensor], Tensor]
"""Predictions of the policy for winner and loser in, losses out."""

PAIRS = 6
SHAPE = (PAIRS, 4, 2, 2)


def has_objective(kind: type[Algorithm]) -> bool:
    """Whether an algorithm defines its objective on pairs of predictions; if not, it writes its own step."""
    if issubclass(kind, PairwiseAlgorithm):
        return (kind.loss, kind.prediction_loss) != (PairwiseAlgorithm.loss, PairwiseAlgorithm.prediction_loss)
    return issubclass(kind, ReferenceFreeAlgorithm)


def steps_by_objective(kind: type[Algorithm]) -> bool:
    """Whether the gradient of a step is that of the objective, whose direction has its own contract."""
    return has_objective(kind) and kind.step in (PairwiseAlgorithm.step, ReferenceFreeAlgorithm.step)


def reference(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What the reference predicts for winner and loser; the targets are 0."""
    source = torch.Generator().manual_seed(0)
    winner, loser = (0.2 * torch.randn(SHAPE, generator=source).to(dtype) for _ in range(2))
    return winner, loser


def objective(algorithm: Algorithm, dtype: torch.dtype = torch.float32) -> Objective:
    """An algorithm's objective on pairs, as a function of the policy's predictions."""
    targets, preference = torch.zeros(SHAPE, dtype=dtype), torch.full((PAIRS,), 0.9)
    if not has_objective(type(algorithm)):
        raise NotApplicableError("the algorithm writes a step of its own, not a loss of predictions for pairs")
    if isinstance(algorithm, PairwiseAlgorithm):
        return lambda winner, loser: algorithm.prediction_loss(
            PairPredictions(winner, loser, *reference(dtype), targets, targets), preference
        )
    assert isinstance(algorithm, ReferenceFreeAlgorithm)  # noqa: S101 (for mypy; see has_objective)
    return lambda winner, loser: algorithm.loss(
        PolicyErrors(sample_errors(winner, targets), sample_errors(loser, targets)), preference
    )


@contract()
def objective_starts_at_the_stated_loss(case: AlgorithmCase) -> None:
    """With the reference's own predictions the objective is the stated initial_loss for each pair."""
    losses, stated = objective(case.algorithm)(*reference(torch.float32)), case.algorithm.initial_loss
    expect(losses.shape == (PAIRS,), f"losses of shape ({PAIRS},) for {PAIRS} pairs", tuple(losses.shape))
    if stated is not None:
        close = all(math.isclose(loss, stated, rel_tol=1e-6) for loss in losses.tolist())
        expect(close, f"{stated:.7g} for each pair", losses.tolist())


@contract()
def objective_prefers_the_winner(case: AlgorithmCase) -> None:
    """The gradient draws predictions for the winner towards their target, and never those for the loser."""
    losses = objective(case.algorithm)
    winner, loser = (prediction.requires_grad_() for prediction in reference(torch.float32))
    losses(winner, loser).sum().backward()
    towards_winner = _towards_target(winner)
    expect(bool((towards_winner > 0).all()), "winners drawn to their target", f"slopes of {towards_winner.tolist()}")
    towards_loser = _towards_target(loser)
    expect(bool((towards_loser <= 0).all()), "losers not drawn to their target", f"slopes of {towards_loser.tolist()}")


@contract()
def objective_is_finite_far_out(case: AlgorithmCase) -> str:
    """Losses are finite float32 and gradients finite for predictions from 0 to 10,000 off, in float32 and bfloat16."""
    count = 0
    for dtype in (torch.float32, torch.bfloat16):
        for size in (0.0, 1e-15, 1.0, 1e4):
            for sides in ((1, 0), (0, 1), (1, 1)):
                where = f"predictions of {sides[0] * size:g} for winners and {sides[1] * size:g} for losers in {dtype}"
                winner, loser = (torch.full(SHAPE, side * size, dtype=dtype).requires_grad_() for side in sides)
                losses = objective(case.algorithm, dtype)(winner, loser)
                losses.sum().backward()
                expect(losses.dtype == torch.float32, f"float32 losses for {where}", losses.dtype)
                expect(bool(torch.isfinite(losses).all()), f"finite losses for {where}", losses.tolist())
                for made in (winner.grad, loser.grad):
                    finite = made is None or bool(torch.isfinite(made).all())
                    expect(finite, f"finite gradients for {where}", "some that are not")
                count += 1
    return f"{count} cases"


@contract()
def objective_counts_each_pair_alone(case: AlgorithmCase) -> None:
    """Another prediction for one pair changes its loss and no other pair's."""
    source = torch.Generator().manual_seed(1)
    losses = objective(case.algorithm)
    winner, loser = (0.2 * torch.randn(SHAPE, generator=source) for _ in range(2))
    before = losses(winner, loser)
    winner[0] += 1
    after = losses(winner, loser)
    expect(before.shape == (PAIRS,), f"losses of shape ({PAIRS},) for {PAIRS} pairs", tuple(before.shape))
    expect(bool(after[0] != before[0]), "another loss of the changed pair", before[0].item())
    expect(torch.equal(after[1:], before[1:]), f"the losses {before[1:].tolist()} of the others", after[1:].tolist())


def _towards_target(prediction: Tensor) -> Tensor:
    """How the loss of each pair grows as its prediction leaves the target, which is 0; (B,)."""
    if prediction.grad is None:
        return torch.zeros(len(prediction))
    return (prediction.grad * prediction.detach()).flatten(1).sum(1)


CONTRACTS = (
    objective_starts_at_the_stated_loss,
    objective_prefers_the_winner,
    objective_is_finite_far_out,
    objective_counts_each_pair_alone,
)
