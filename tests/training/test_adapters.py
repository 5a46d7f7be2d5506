"""How low-rank adapters start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from workshop import Workshop


def factors(workshop: Workshop, init: str) -> tuple[Tensor, Tensor]:
    """All elements of the adapters' first factors, in units of what PEFT's own bound is for them, and of their second ones."""
    parameters = workshop.policy(trainable="lora", lora_rank=8, lora_init=init).parameters()
    first = [value.detach() for name, value in parameters if "lora_A" in name]
    second = [value.detach() for name, value in parameters if "lora_B" in name]
    assert first
    assert len(first) == len(second)
    bounds = [1 / math.sqrt(value.shape[1]) for value in first]
    scaled = [value.flatten() / (bound if init == "uniform" else 1) for value, bound in zip(first, bounds, strict=True)]
    return torch.cat(scaled), torch.cat([value.flatten() for value in second])


def test_gaussian_adapters_start_with_a_deviation_of_one_over_the_rank(workshop: Workshop) -> None:
    first, second = factors(workshop, "gaussian")
    assert first.mean().item() == pytest.approx(0, abs=0.01)
    assert first.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert (first.abs() > 2 / 8).float().mean().item() == pytest.approx(
        0.0455, abs=0.02
    )  # a Gaussian's share beyond 2 deviations
    assert not second.any()


def test_adapters_start_uniform_otherwise(workshop: Workshop) -> None:
    first, second = factors(workshop, "uniform")
    assert first.abs().max() <= 1
    assert first.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.05)
    assert not second.any()
