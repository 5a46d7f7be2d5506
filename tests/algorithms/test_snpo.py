"""Diff-SNPO: worked numbers, its two ends, and which pairs are exchanged."""

from __future__ import annotations

import torch
from torch import Tensor
from workshop import Workshop, batch_of

from algorithms.dpo import dpo_loss
from algorithms.snpo import SNPO, snpo_loss
from bench import PairErrors
from bench.experiments.recipes import resolve


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


F1 = PairErrors(double(0.10, 0.20), double(0.30, 0.25), double(0.12, 0.18), double(0.28, 0.26))
EXCHANGED = PairErrors(F1.policy_loser, F1.policy_winner, F1.reference_loser, F1.reference_winner)


def test_worked_numbers_with_and_without_the_caption() -> None:
    """The specification has energies of 10 errors and a beta of 0.5 on them: 10 in DPO's convention."""
    for errors, expected in ((F1, 0.6857366147), (EXCHANGED, 0.7095784558)):
        loss = snpo_loss(errors, beta=10.0, mixture=0.9, scale=10.0).mean()
        torch.testing.assert_close(loss, double(expected)[0], rtol=0, atol=1e-9)


def test_the_gain_from_a_worse_loser_is_the_specifications() -> None:
    """With a perfect winner gap of 0 and beta 2 the loss is softplus of minus the mixed gap."""
    even = double(0.12, 0.18)
    loss = snpo_loss(F1._replace(policy_winner=even, reference_winner=even), beta=20.0, mixture=0.9, scale=10.0)
    mixed = (loss.expm1().log()).neg()  # in energies
    torch.testing.assert_close(mixed, double(0.1781012615, -0.0904381729), rtol=0, atol=1e-9)


def test_without_a_mixture_it_is_dpo_at_any_scale() -> None:
    for scale in (0.1, 1000.0):
        torch.testing.assert_close(snpo_loss(F1, beta=10.0, mixture=1.0, scale=scale), dpo_loss(F1, beta=10.0))


def test_a_loser_that_is_bad_enough_teaches_nothing_more() -> None:
    loser = double(0.1, 50.0).requires_grad_()
    errors = PairErrors(double(0.1, 0.1), loser, double(0.1, 0.1), double(0.1, 0.1))
    snpo_loss(errors, beta=10.0, mixture=0.9, scale=10.0).sum().backward()
    assert loser.grad is not None
    assert loser.grad[0] < -1
    assert -1e-9 < loser.grad[1] <= 0


def test_pairs_with_an_empty_prompt_are_exchanged(workshop: Workshop) -> None:
    batch = workshop.batch(range(20))
    empty = batch.draws.uniform("empty prompt") < 0.5
    assert empty.any()
    assert not empty.all()
    routed = SNPO(empty_share=0.5).routed(batch)
    torch.testing.assert_close(routed.winner[~empty], batch.winner[~empty])
    torch.testing.assert_close(routed.winner[empty], batch.loser[empty])
    torch.testing.assert_close(routed.loser[empty], batch.winner[empty])
    for name, value in batch.condition.items():
        torch.testing.assert_close(routed.condition[name][~empty], value[~empty])
        torch.testing.assert_close(routed.condition[name][empty], batch.flipped().unconditional[name][empty])
        torch.testing.assert_close(routed.loser_condition[name][empty], batch.unconditional[name][empty])
    assert not torch.equal(routed.condition["prompt_embeds"][empty], batch.condition["prompt_embeds"][empty])


def test_by_default_every_pair_without_its_caption_is_exchanged(workshop: Workshop) -> None:
    """A pair that lost its caption in another way would train the same prompt towards the winner."""
    algorithm, settings = resolve("snpo", SNPO, "nothing-like-it", {})
    assert isinstance(algorithm, SNPO)
    rows, empty = range(40), 0
    nothing = workshop.encoded.condition([""])["prompt_embeds"][0]
    for step in range(3):
        batch = batch_of(workshop.data, workshop.encoded, rows, caption_dropout=settings.caption_dropout, step=step)
        routed = algorithm.routed(batch)
        for row in rows:
            if torch.equal(routed.condition["prompt_embeds"][row], nothing):
                assert torch.equal(routed.winner[row], batch.loser[row])
                empty += 1
    assert empty > 0


def test_no_share_is_the_batch_itself(workshop: Workshop) -> None:
    batch = workshop.batch(range(4))
    routed = SNPO(empty_share=0.0).routed(batch)
    assert torch.equal(routed.winner, batch.winner)
    assert torch.equal(routed.loser, batch.loser)
