"""The norms of gradients by sampling step, and that keeping them apart changes no gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from workshop import Workshop

from algorithms.ddpo import DDPO
from algorithms.nft import NFT
from algorithms.tailorpo import TailorPO
from bench import ODE
from bench.rollouts.candidates import Choice, Comparison
from bench.rollouts.grid import evaluation_grid
from bench.training.distributed.strategy import Replicated
from bench.training.step_gradients import StepGradients
from bench.training.step_pairs import StepPairBatch

ADAPTERS: dict[str, Any] = {"trainable": "lora", "learning_rate": 1e-3, "global_batch_size": 8}


def about(step: int, workshop: Workshop) -> StepPairBatch:
    """A batch of one sample about one of four sampling steps."""
    latents = torch.zeros(1, 1, 2, 2)
    comparison = Comparison(latents, torch.tensor([4 - step]), ODE, Choice(latents, latents, latents, {}))
    return StepPairBatch(comparison, evaluation_grid(workshop.model(), 4), lambda _: lambda x, _: x, (0,), (0,))


def gather(weight: nn.Parameter, losses: list[tuple[Any, Tensor]], *, apart: bool) -> dict[str, float]:
    """Norms of the gradients of ``weight`` by these factors, a backward for each batch."""
    weight.grad = None
    gradients = StepGradients([weight], apart=apart)
    for batch, factors in losses:
        (weight * factors).sum().backward()
        gradients.after_backward(batch)
    return gradients.sum(Replicated())


def test_norms_are_of_each_steps_part_and_the_gradient_is_their_sum(workshop: Workshop) -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    first, third = about(0, workshop), about(2, workshop)
    losses = [
        (first, torch.tensor([3.0, 4.0])),
        (third, torch.tensor([0.0, 12.0])),
        (first, torch.tensor([0.0, -4.0])),
    ]
    assert gather(weight, losses, apart=True) == {"0": 3.0, "2": 12.0}
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 12.0]
    assert gather(weight, losses, apart=False) == {}
    assert weight.grad.tolist() == [3.0, 12.0]


@pytest.mark.parametrize("make", [DDPO, TailorPO])
def test_adapters_log_them_whatever_the_cut(workshop: Workshop, tmp_path: Path, make: type[DDPO | TailorPO]) -> None:
    algorithm = make(rewards=("clip",), sampling_steps=4, trained=2)
    one, cut = (
        workshop.train(tmp_path / str(size), algorithm, steps=1, micro_batch_size=size, **ADAPTERS).steps()[0]
        for size in (8, 4)
    )
    norms = one["gradient_norm_by_step"]
    assert norms.keys() == cut["gradient_norm_by_step"].keys()
    assert len(norms) == 2
    assert one["gradient_norm"] < sum(norms.values())
    for step, norm in norms.items():
        assert 0 < norm == pytest.approx(cut["gradient_norm_by_step"][step], rel=1e-2)


def test_a_single_step_has_the_whole_gradient(workshop: Workshop, tmp_path: Path) -> None:
    run = workshop.train(
        tmp_path, DDPO(rewards=("clip",), sampling_steps=4, trained=1), steps=1, micro_batch_size=4, **ADAPTERS
    )
    (norm,) = run.steps()[0]["gradient_norm_by_step"].values()
    assert norm == run.steps()[0]["gradient_norm"]


def test_full_weights_and_losses_at_random_times_have_none(workshop: Workshop, tmp_path: Path) -> None:
    for name, algorithm, changes in (
        ("full", DDPO(rewards=("clip",), sampling_steps=4), {"trainable": "full"}),
        ("random", NFT(rewards=("clip",), sampling_steps=4), {}),
    ):
        run = workshop.train(tmp_path / name, algorithm, steps=1, micro_batch_size=8, **{**ADAPTERS, **changes})
        assert "gradient_norm_by_step" not in run.steps()[0]
