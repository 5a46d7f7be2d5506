from __future__ import annotations

from pathlib import Path

import pytest
import torch
from workshop import Workshop, state

from algorithms.dpo import DPO
from bench.core.errors import UserError


class TestBudget:
    def test_training_stops_after_the_step_that_reaches_it(self, workshop: Workshop, tmp_path: Path) -> None:
        # a step of DPO on 4 pairs: 8 policy forwards with backward, counted three times, and 8 of the reference
        run = workshop.train(tmp_path, DPO(), global_batch_size=4, steps=1, budget={"unit": "forwards", "amount": 70})
        assert [line["step"] for line in run.steps()] == [0, 1, 2]
        assert run.ledger()["policy_forwards"] == 24

    def test_a_budget_that_preparing_takes_up_trains_nothing_and_says_so(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        budget = {"unit": "forwards", "amount": 70}
        with pytest.raises(
            UserError, match="preparing the data alone costs 70 forwards, which uses up the budget of 70"
        ):
            workshop.train(tmp_path, DPO(), budget=budget, prepared_forwards=70)
        assert not list(tmp_path.rglob("DONE"))
        assert workshop.train(tmp_path, DPO(), global_batch_size=4, budget=budget, prepared_forwards=69).done

    def test_a_budget_of_pairs_is_so_many_steps(self, workshop: Workshop, tmp_path: Path) -> None:
        by_budget = workshop.train(tmp_path / "one", DPO(), global_batch_size=4, budget={"unit": "pairs", "amount": 12})
        by_steps = workshop.train(tmp_path / "other", DPO(), global_batch_size=4, steps=3)
        assert all(
            torch.equal(one, other)
            for one, other in zip(state(by_budget).values(), state(by_steps).values(), strict=True)
        )

    def test_it_goes_on_where_it_stopped(self, workshop: Workshop, tmp_path: Path) -> None:
        for amount in (40, 100):
            run = workshop.train(
                tmp_path / "resumed", DPO(), global_batch_size=4, budget={"unit": "forwards", "amount": amount}
            )
        straight = workshop.train(
            tmp_path / "straight", DPO(), global_batch_size=4, budget={"unit": "forwards", "amount": 100}
        )
        assert run.ledger()["policy_forwards"] == straight.ledger()["policy_forwards"] == 32
        assert all(
            torch.equal(one, other) for one, other in zip(state(run).values(), state(straight).values(), strict=True)
        )
