from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.tiny.building import fitting
from bench.tiny.building.fitting import FitSettings, draws, fit


def regression() -> tuple[nn.ModuleDict, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    modules = nn.ModuleDict({"line": nn.Linear(3, 1)})
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    return modules, x, x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3


def run(work: Path, settings: FitSettings, stop_at: int | None = None) -> nn.ModuleDict:
    modules, x, y = regression()

    def loss(step: int) -> Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        rows = draws(step, len(x), 16)
        return (modules["line"](x[rows]).float() - y[rows]).square().mean()

    fit("line", modules, loss, settings, work)
    return modules


SETTINGS = FitSettings(steps=300, learning_rate=0.05, warmup=10, average=0.9, weight_decay=0)


def test_it_fits(tmp_path: Path) -> None:
    modules = run(tmp_path, SETTINGS)
    assert modules["line"].weight.flatten().tolist() == pytest.approx([1, -2, 0.5], abs=0.05)


def test_continued_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    whole = run(tmp_path / "whole", SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", SETTINGS, stop_at=137)
    parts = run(tmp_path / "parts", SETTINGS)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_loss_that_is_not_finite_stops_the_fit(tmp_path: Path) -> None:
    modules, _, _ = regression()
    with pytest.raises(RuntimeError, match="loss is nan at step 0"):
        fit("line", modules, lambda step: modules["line"].weight.sum() * float("nan"), SETTINGS, tmp_path)


def test_the_rate_rises_stays_and_falls() -> None:
    settings = FitSettings(steps=1100, learning_rate=1.0, warmup=100, decay=0.25)
    rates = [settings.rate(step) for step in (0, 49, 100, 849, 975, 1099)]
    assert rates == pytest.approx([0.01, 0.5, 1, 1, 0.5, 0], abs=1e-4)


def test_the_number_of_steps_can_change_before_the_rate_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    longer, shorter = (FitSettings(steps=steps, learning_rate=0.05, warmup=10, decay=0.25) for steps in (400, 200))
    whole = run(tmp_path / "whole", shorter)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", longer, stop_at=120)
    parts = run(tmp_path / "parts", shorter)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_unfinished_fit_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, SETTINGS, stop_at=200)
    modules, _, _ = regression()
    assert fitting.unfinished_average(tmp_path / "line.pt", modules) == 200
    assert modules["line"].weight.flatten().tolist() == pytest.approx([1, -2, 0.5], abs=0.2)
