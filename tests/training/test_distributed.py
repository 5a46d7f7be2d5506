from __future__ import annotations

from pathlib import Path

import pytest
import torch
from launching import ALONE, TWO, launch, train, weights
from workshop import Workshop

from algorithms.dpo import DPO


@pytest.mark.parametrize("batch", [pytest.param(8, marks=pytest.mark.slow, id="even"), pytest.param(5, id="odd")])
def test_two_processes_give_the_weights_of_one(workshop: Workshop, tmp_path: Path, batch: int) -> None:
    """To a twentieth of what the four steps moved: float32 sums in another order, and AdamW divides by their size."""
    settings = {"steps": 4, "global_batch_size": batch, "micro_batch_size": 3, "learning_rate": 1e-4}
    one = workshop.train(tmp_path / "one", DPO(), **settings)
    two = train(TWO, workshop, tmp_path / "two", **settings)
    base = dict(workshop.model().network.named_parameters())
    alone, together = weights(one), weights(two)
    moved = torch.cat([(value - base[name]).flatten() for name, value in alone.items()])
    apart = torch.cat([(value - together[name]).flatten() for name, value in alone.items()])
    assert moved.norm() > 0
    assert apart.norm() < 0.05 * moved.norm()

    for lonely, joint in zip(one.steps(), two.steps(), strict=True):
        assert joint["loss"] == pytest.approx(lonely["loss"], rel=1e-3)
        assert joint["gradient_norm"] == pytest.approx(lonely["gradient_norm"], rel=1e-2)
    assert two.steps()[0]["gradient_norm"] == pytest.approx(one.steps()[0]["gradient_norm"], rel=1e-4)

    counts = ("pairs", "policy_forwards", "policy_backwards", "reference_forwards", "flops")
    assert {name: one.ledger()[name] for name in counts} == {name: two.ledger()[name] for name in counts}


@pytest.mark.slow
def test_two_processes_go_on_where_one_stopped(workshop: Workshop, tmp_path: Path) -> None:
    settings = {"global_batch_size": 8, "learning_rate": 1e-4}
    straight = train(ALONE, workshop, tmp_path / "straight", steps=3, **settings)
    train(ALONE, workshop, tmp_path / "changed", steps=1, **settings)
    changed = train(TWO, workshop, tmp_path / "changed", steps=3, **settings)
    assert [line["step"] for line in changed.steps()] == [0, 1, 2]
    for one, other in zip(straight.steps(), changed.steps(), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert changed.ledger()["pairs"] == 24
    assert changed.ledger()["policy_forwards"] == straight.ledger()["policy_forwards"]


@pytest.mark.slow
def test_more_processes_than_pairs_in_a_batch_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    done = launch(TWO, workshop, {tmp_path: {"steps": 1, "global_batch_size": 1}})
    assert done.returncode != 0
    assert "global_batch_size=1 is too small for 2 processes" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["kto", "rpo"])
def test_an_objective_that_couples_a_batch_couples_it_over_processes(
    workshop: Workshop, tmp_path: Path, algorithm: str
) -> None:
    settings = {
        "algorithm": algorithm,
        "steps": 2,
        "global_batch_size": 5,
        "micro_batch_size": 2,
        "learning_rate": 1e-4,
    }
    one, two = (train(how, workshop, tmp_path / str(len(how)), **settings) for how in (ALONE, TWO))
    for lonely, joint in zip(one.steps(), two.steps(), strict=True):
        assert joint["loss"] == pytest.approx(lonely["loss"], rel=1e-3)
        assert joint["gradient_norm"] == pytest.approx(lonely["gradient_norm"], rel=1e-2)


@pytest.mark.slow
def test_a_budget_is_that_of_all_processes(workshop: Workshop, tmp_path: Path) -> None:
    settings = {"global_batch_size": 4, "budget": {"unit": "forwards", "amount": 70}, "checkpoint_seconds": 0}
    run = train(TWO, workshop, tmp_path, **settings)
    assert len(run.steps()) == 3
    assert run.ledger()["policy_forwards"] == 24
