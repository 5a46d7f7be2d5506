from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from workshop import Workshop

from algorithms.dpo import DPO
from bench import TrainingSettings, UserError
from bench.core.validation import build
from bench.records.runs import RunFolder
from bench.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from bench.training.distributed.strategy import Replicated
from bench.training.ledger import Ledger
from bench.training.optimizers import OPTIMIZERS
from bench.training.schedule import rate_at


def state(run: RunFolder) -> dict[str, Tensor]:
    (folder,) = run.checkpoints.iterdir()
    return load_file(folder / "state.safetensors")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # the first step of both is the rate times the gradient's sign, beside the decay 0.1 * 0.01 * weight
        ("adamw", [1.898, -0.899]),
        ("adafactor", [1.898, -0.899]),
    ],
)
def test_the_first_step_is_the_rate_and_the_decay(name: str, expected: list[float]) -> None:
    weight = nn.Parameter(torch.tensor([2.0, -1.0]))
    optimizer = OPTIMIZERS[name].build([weight], 0.1, 0.01)
    weight.grad = torch.tensor([3.0, -0.5])
    optimizer.step()
    assert weight.tolist() == pytest.approx(expected, abs=1e-6)


def test_adafactor_neither_scales_with_the_weight_nor_moves_more_than_the_rate_on_average() -> None:
    """Of a matrix it keeps sums of rows and columns; here the squares are [[1, 4], [9, 16]].

    Rows have means 2.5 and 12.5, columns 5 and 10; the estimate of a square is row * column / 7.5, so the updates are
    1 / sqrt(5/3), 2 / sqrt(10/3), 3 / sqrt(25/3), 4 / sqrt(50/3), of root mean square 0.98; above 1 it would be brought to 1.
    """
    weight = nn.Parameter(torch.full((2, 2), 100.0))
    optimizer = OPTIMIZERS["adafactor"].build([weight], 0.1, 0.0)
    weight.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    optimizer.step()
    moved = (100 - weight.detach()) / 0.1
    torch.testing.assert_close(moved, torch.tensor([[0.774597, 1.095445], [1.039230, 0.979796]]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_what_an_optimizer_remembers_is_known_before_it_steps(name: str) -> None:
    shapes = [(6, 4, 3, 3), (7, 5), (9,)]
    weights = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = OPTIMIZERS[name].build(weights, 0.1, 0.0)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    predict_with_snapshot = [
        [each for each in optimizer.state[weight].values() if isinstance(each, Tensor)] for weight in weights
    ]
    held = [sum(each.untyped_storage().nbytes() for each in tensors) for tensors in predict_with_snapshot]
    assert [OPTIMIZERS[name].state(shape) for shape in shapes] == held


def test_eight_bits_are_two_bytes_an_element_and_two_scales_a_block_but_not_in_small_weights() -> None:
    state = OPTIMIZERS["adamw-8bit"].state
    assert state((64, 100)) == 2 * 6400 + 2 * 4 * 25
    assert state((4095,)) == 8 * 4095


def test_adafactor_goes_on_as_if_it_had_never_stopped(workshop: Workshop, tmp_path: Path) -> None:
    straight = workshop.train(tmp_path / "straight", DPO(), steps=4, optimizer="adafactor")
    workshop.train(tmp_path / "resumed", DPO(), steps=2, optimizer="adafactor")
    resumed = workshop.train(tmp_path / "resumed", DPO(), steps=4, optimizer="adafactor")
    expected, made = state(straight), state(resumed)
    assert made.keys() == expected.keys()
    assert any(name.startswith("optimizer/exp_avg_sq_row/") for name in expected)
    assert [name for name, value in made.items() if not torch.equal(value, expected[name])] == []


def test_the_record_holds_the_rate_of_the_schedule(workshop: Workshop, tmp_path: Path) -> None:
    run = workshop.train(tmp_path, DPO(), steps=2, learning_rate=1e-4, lr_schedule="cosine")
    assert [line["learning_rate"] for line in run.steps()] == pytest.approx([1e-4, 0.5e-4])


def test_a_fused_optimizer_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def fresh(seed: int) -> TrainingState:
        torch.manual_seed(seed)
        network = nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)
        return TrainingState(list(network.named_parameters()), optimizer, {}, Replicated())

    def step(each: TrainingState) -> None:
        for _, parameter in each.parameters:
            parameter.grad = torch.ones_like(parameter)
        each.optimizer.step()

    saved, loaded = fresh(0), fresh(1)
    step(saved)
    save_checkpoint(tmp_path, 1, dict(saved.tensors()), Ledger(), "run")
    load_checkpoint(tmp_path, loaded, Ledger(), "run")
    step(saved)
    step(loaded)
    for (_, one), (_, other) in zip(saved.parameters, loaded.parameters, strict=True):
        assert torch.equal(one, other)


def test_a_cosine_falls_to_zero_after_the_warm_up() -> None:
    settings = TrainingSettings(steps=6, warmup_steps=2, learning_rate=1e-3, lr_schedule="cosine")
    rates = [rate_at(settings, step) for step in range(7)]
    assert rates == pytest.approx([0, 0.5e-3, 1e-3, 0.853553e-3, 0.5e-3, 0.146447e-3, 0], abs=1e-9)


@pytest.mark.parametrize("name", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_every_rate_is_the_one_that_a_published_script_steps_with(
    name: Literal["constant", "cosine"], warmup: int
) -> None:
    """All of them step the optimizer first and diffusers' schedule after it (accelerate multiplies both by the processes)."""
    from diffusers.optimization import get_scheduler

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-4)
    published = {"constant": "constant_with_warmup", "cosine": "cosine"}[name]
    schedule = get_scheduler(published, optimizer, num_warmup_steps=warmup, num_training_steps=9)
    expected = []
    for _ in range(9):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    settings = TrainingSettings(steps=9, warmup_steps=warmup, learning_rate=3e-4, lr_schedule=name)
    assert [rate_at(settings, step) for step in range(9)] == pytest.approx(expected, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"optimizer": "adam"}, "optimizer='adam' is not allowed: .*choose from adamw, adamw-8bit, adafactor"),
        (
            {"lr_schedule": "cosine", "budget": {"unit": "pairs", "amount": 9}},
            "lr_schedule=cosine needs a fixed number of steps; leave --budget out",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        build(TrainingSettings, settings, "dpo")


def test_eight_bits_without_bitsandbytes_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"needs the package 'bitsandbytes', .*\[eight-bit\]"):
        OPTIMIZERS["adamw-8bit"].refuse(torch.device("cuda"))


def test_eight_bits_need_cuda() -> None:
    with pytest.raises(UserError, match="runs on CUDA only; use --set optimizer=adamw"):
        OPTIMIZERS["adamw-8bit"].refuse(torch.device("cpu"))
