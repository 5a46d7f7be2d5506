"""The norms of gradients by sampling step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from workshop import Workshop

from algorithms.ddpo import DDPO
from algorithms.tailorpo import TailorPO
from bench.training.distributed.strategy import Replicated
from bench.training.step_gradients import StepGradients

TRAINING: dict[str, Any] = {"steps": 1, "learning_rate": 1e-3, "global_batch_size": 8}


def test_norms_are_of_each_steps_part_and_the_gradient_is_their_sum() -> None:
    weight, unused = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor(1.0))
    gradients = StepGradients([weight, unused])
    for number, factors in ((0, [3.0, 4.0]), (2, [0.0, 12.0]), (0, [0.0, -4.0])):
        gradients.backward((weight * torch.tensor(factors)).sum(), number)
    assert [gradient.tolist() for gradient in gradients.tensors] == [[3.0, 0.0], [0.0, 12.0]]
    assert gradients.sum(Replicated()) == {"0": 3.0, "2": 12.0}
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 12.0]
    assert unused.grad is None  # so that weight decay leaves it alone


@pytest.mark.parametrize("make", [DDPO, TailorPO])
def test_a_run_logs_them_whatever_the_cut_and_learns_the_same(
    workshop: Workshop, tmp_path: Path, make: type[DDPO | TailorPO]
) -> None:
    algorithm = make(rewards=("clip",), sampling_steps=4, trained=2)
    usual = workshop.train(tmp_path / "usual", algorithm, micro_batch_size=8, **TRAINING).steps()[0]
    assert "gradient_norm_by_step" not in usual
    one, cut = (
        workshop.train(
            tmp_path / str(size), algorithm, micro_batch_size=size, gradients_by_step=True, **TRAINING
        ).steps()[0]
        for size in (8, 4)
    )
    norms = one["gradient_norm_by_step"]
    assert norms.keys() == cut["gradient_norm_by_step"].keys()
    assert len(norms) == 2
    assert one["gradient_norm"] == pytest.approx(usual["gradient_norm"], rel=1e-4)
    assert one["gradient_norm"] < sum(norms.values())
    for step, norm in norms.items():
        assert 0 < norm == pytest.approx(cut["gradient_norm_by_step"][step], rel=1e-2)
