from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from workshop import Workshop, batch_of

from bench.core.randomness import normal


def drawn(workshop: Workshop, rows: list[int]) -> Tensor:
    """Latents of both images of some rows in the data's order, as step 0 draws them."""
    posterior = workshop.encoded.posterior(rows)
    noise = [normal(posterior.mean.shape[1:], 0, "posterior", 0, row) for row in rows]
    return posterior.mean + posterior.deviation * torch.stack(noise)


class TestBatch:
    def test_the_preferred_image_comes_first(self, workshop: Workshop) -> None:
        batch = workshop.batch([0, 1])
        both = drawn(workshop, [0, 1])
        assert workshop.data.preference_0[:2].tolist() == [1, 0]
        assert torch.equal(batch.winner, torch.stack([both[0, 0], both[1, 1]]))
        assert torch.equal(batch.loser, torch.stack([both[0, 1], both[1, 0]]))
        assert batch.preference.tolist() == [1, 1]
        assert batch.row_ids == (0, 1)

    def test_a_soft_label_is_the_probability_of_the_winner(self, workshop: Workshop) -> None:
        soft = workshop.data.with_preference(np.array([0.75, 0.25] * 20))
        batch = workshop.batch([0, 1], data=soft)
        both = drawn(workshop, [0, 1])
        assert batch.preference.tolist() == [0.75, 0.75]
        assert torch.equal(batch.winner, torch.stack([both[0, 0], both[1, 1]]))

    def test_captions_are_dropped_at_the_stated_rate_and_by_address(self, workshop: Workshop) -> None:
        empty = workshop.encoded.condition([""])["prompt_embeds"][0]
        rows = list(range(40)) * 10

        def dropped(rate: float, step: int) -> list[bool]:
            batch = batch_of(workshop.data, workshop.encoded, list(range(40)), caption_dropout=rate, step=step)
            return [torch.equal(row, empty) for row in batch.condition["prompt_embeds"]]

        assert sum(sum(dropped(0.25, step)) for step in range(10)) / len(rows) == pytest.approx(0.25, abs=0.07)
        assert sum(dropped(0.0, 0)) == 0
        alone = batch_of(workshop.data, workshop.encoded, [7], caption_dropout=0.25, step=3)
        assert torch.equal(alone.condition["prompt_embeds"][0], empty) == dropped(0.25, 3)[7]
