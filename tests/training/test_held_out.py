"""Captions that are held out from algorithms that sample: which they are, and that no loss is about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr
from workshop import Workshop

from algorithms.ddpo import DDPO
from algorithms.draft import DRaFT
from bench import GradientBatch, Policy, RolloutBatch, StepOutput
from bench.training.held_out import held_out_captions, spread_captions, trained_rows


def test_they_are_evenly_spaced_in_alphabetical_order_and_a_quarter_at_most() -> None:
    captions = ["d", "a", "c", "b", "e", "h", "g", "f", "a"]
    assert spread_captions(captions, 3) == ["a", "e", "h"]  # places 0, 3.5 (rounded to even) and 7 of a to h
    assert spread_captions(captions, 99) == list("abcdefgh")
    assert held_out_captions(captions, 99) == held_out_captions(captions, 2) == ["a", "h"]
    assert held_out_captions(captions, 1) == ["a"]
    assert held_out_captions(captions[:3], 16) == held_out_captions(captions, 0) == []


def test_every_row_of_a_held_out_caption_is_left_out() -> None:
    captions = ["d", "a", "c", "b", "e", "h", "g", "f", "a"]
    assert trained_rows(captions, 2) == [0, 2, 3, 4, 6, 7]
    assert trained_rows(captions, 0) == list(range(9))


class SeenDDPO(DDPO):
    _seen: set[int] = PrivateAttr(default_factory=set)

    def step(self, batch: RolloutBatch, policy: Policy) -> StepOutput:  # type: ignore[override]
        self._seen.update(batch.row_ids)
        return super().step(batch, policy)


class SeenDRaFT(DRaFT):
    _seen: set[int] = PrivateAttr(default_factory=set)

    def step(self, batch: GradientBatch, policy: Policy) -> StepOutput:  # type: ignore[override]
        self._seen.update(batch.row_ids)
        return super().step(batch, policy)


@pytest.mark.parametrize("held_out", [16, 0])
@pytest.mark.parametrize("kind", [SeenDDPO, SeenDRaFT])
def test_no_loss_is_about_them(workshop: Workshop, tmp_path: Path, kind: Any, held_out: int) -> None:
    small = {"group": 2, "trained": 2} if kind is SeenDDPO else {}
    algorithm = kind(rewards="clip", sampling_steps=2, held_out=held_out, **small)
    rows = trained_rows(workshop.captions, held_out)
    assert len(rows) == (30 if held_out else 40)  # a quarter of the 40 captions
    many = (
        4 if kind is SeenDDPO else 2
    )  # so that every trained caption has been seen: 2 * 40 / 4 samples, 40 / 2 captions
    workshop.train(tmp_path, algorithm, steps=many, global_batch_size=20, micro_batch_size=20)
    assert algorithm._seen == set(rows)
