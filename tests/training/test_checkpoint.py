from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.training.checkpoint import Parameters, TrainingState, checkpoints, load_checkpoint, save_checkpoint
from bench.training.distributed.strategy import Replicated
from bench.training.ledger import Ledger

State = tuple[Parameters, torch.optim.AdamW]


def fresh(seed: int, dtype: torch.dtype = torch.float32) -> State:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).to(dtype)
    return list(network.named_parameters()), torch.optim.AdamW(network.parameters(), lr=0.1)


def save(folder: Path, number: int, state: State, ledger: Ledger) -> None:
    save_checkpoint(folder, number, dict(TrainingState(*state, {}, Replicated()).tensors()), ledger, "one")


def load(folder: Path, state: State, ledger: Ledger, run: str = "one") -> int:
    return load_checkpoint(folder, TrainingState(*state, {}, Replicated()), ledger, run)


def step(state: State, number: int) -> None:
    parameters, optimizer = state
    source = torch.Generator().manual_seed(number)
    for _, parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=source).to(parameter)
    optimizer.step()


def tensors(state: State) -> dict[str, Tensor]:
    parameters, optimizer = state
    found = {name: parameter.detach() for name, parameter in parameters}
    for name, parameter in parameters:
        found |= {f"{name} {key}": value for key, value in optimizer.state[parameter].items()}
    return found


def assert_equal(one: State, other: State) -> None:
    left, right = tensors(one), tensors(other)
    assert left.keys() == right.keys()
    assert [name for name, value in left.items() if not torch.equal(value, right[name])] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_and_optimizer_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    saved, loaded = fresh(0, dtype), fresh(1, dtype)
    for number in range(3):
        step(saved, number)
    save(tmp_path, 3, saved, Ledger(pairs=96, seconds=1.5))
    ledger = Ledger()
    assert load(tmp_path, loaded, ledger) == 3
    assert_equal(saved, loaded)
    assert ledger == Ledger(pairs=96, seconds=1.5)


def test_going_on_from_a_checkpoint_equals_never_having_stopped(tmp_path: Path) -> None:
    straight, resumed = fresh(0), fresh(0)
    for number in range(3):
        step(straight, number)
    save(tmp_path, 3, straight, Ledger())
    load(tmp_path, resumed, Ledger())
    for number in range(3, 6):
        step(straight, number)
        step(resumed, number)
    assert_equal(straight, resumed)


def test_a_state_before_the_first_step_can_be_saved(tmp_path: Path) -> None:
    saved, loaded = fresh(0), fresh(1)
    save(tmp_path, 0, saved, Ledger())
    assert load(tmp_path, loaded, Ledger()) == 0
    assert_equal(saved, loaded)


def test_without_a_checkpoint_training_starts_at_step_0_with_what_it_has(tmp_path: Path) -> None:
    state = fresh(0)
    ledger = Ledger(pairs=1)
    assert load(tmp_path / "nothing", state, ledger) == 0
    assert_equal(state, fresh(0))
    assert ledger == Ledger(pairs=1)


def test_older_checkpoints_go_when_a_newer_one_is_whole(tmp_path: Path) -> None:
    state = fresh(0)
    for number in (8, 9, 10, 100):
        save(tmp_path, number, state, Ledger())
        assert [path.name for path in checkpoints(tmp_path)] == [f"step-{number:08d}"]
    assert os.listdir(tmp_path) == ["step-00000100"]


def test_the_newest_of_two_checkpoints_is_taken(tmp_path: Path) -> None:
    old, new, loaded = fresh(0), fresh(1), fresh(2)
    save(tmp_path / "elsewhere", 9, old, Ledger())
    save(tmp_path, 10, new, Ledger())
    (tmp_path / "elsewhere" / "step-00000009").rename(tmp_path / "step-00000009")
    assert load(tmp_path, loaded, Ledger()) == 10
    assert_equal(new, loaded)


def test_a_checkpoint_that_a_crash_left_half_written_is_not_taken(tmp_path: Path) -> None:
    saved, loaded = fresh(0), fresh(1)
    save(tmp_path, 5, saved, Ledger())
    half = tmp_path / ".step-00000006.partial"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    assert load(tmp_path, loaded, Ledger()) == 5
    assert_equal(saved, loaded)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    save(tmp_path, 5, fresh(0), Ledger())
    file = tmp_path / "step-00000005" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"step-00000005/state\.safetensors cannot be read .* delete .*step-00000005"):
        load(tmp_path, fresh(1), Ledger())


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "3"])
def test_a_damaged_manifest_of_a_checkpoint(tmp_path: Path, text: str) -> None:
    save(tmp_path, 5, fresh(0), Ledger())
    (tmp_path / "step-00000005" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"state\.safetensors cannot be read"):
        load(tmp_path, fresh(1), Ledger())


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ({"step": "5", "ledger": "{"}, "its ledger is damaged"),
        ({"step": "5", "ledger": "[" * 100_000}, "its ledger is damaged: it is nested too deeply"),
        ({"step": "5", "ledger": '{"restore": 1}'}, "its ledger is not one of this version"),
        ({"step": "5", "ledger": '{"pairs": "many"}'}, "pairs of its ledger is not a number"),
        ({"step": "-5", "ledger": "{}"}, "it does not say which step it is from"),
        ({"step": "five", "ledger": "{}"}, "it does not say which step it is from"),
    ],
)
def test_a_checkpoint_of_a_stranger_is_one_sentence(tmp_path: Path, metadata: dict[str, str], what: str) -> None:
    save(tmp_path, 5, fresh(0), Ledger())
    folder = tmp_path / "step-00000005"
    (folder / "manifest.json").unlink()  # as older versions, which wrote none
    save_file(load_file(folder / "state.safetensors"), folder / "state.safetensors", metadata)
    with pytest.raises(UserError, match=rf"state\.safetensors cannot be read \({what}"):
        load(tmp_path, fresh(1), Ledger())


def test_a_changed_weight_is_noticed_before_anything_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, 5, fresh(0), Ledger())
    file = tmp_path / "step-00000005" / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    state = fresh(1)
    with pytest.raises(UserError, match=r"state\.safetensors cannot be read \(its SHA-256 is not the one in manifest"):
        load(tmp_path, state, Ledger())
    assert_equal(state, fresh(1))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 5, fresh(0), Ledger())
    other = nn.Sequential(nn.Linear(3, 5))
    state = (list(other.named_parameters()), torch.optim.AdamW(other.parameters()))
    with pytest.raises(UserError, match=r"its parameters are not those that are trained: 1\.bias"):
        load(tmp_path, state, Ledger())


def test_a_checkpoint_of_another_run_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, 5, fresh(0), Ledger())
    state = fresh(1)
    with pytest.raises(
        UserError, match=r"state\.safetensors cannot be read \(it belongs to another run, with different settings"
    ):
        load(tmp_path, state, Ledger(), "another")
    assert_equal(state, fresh(1))


def test_a_checkpoint_of_an_older_version_has_no_digest_and_no_run_and_is_taken(tmp_path: Path) -> None:
    saved, loaded = fresh(0), fresh(1)
    save(tmp_path, 5, saved, Ledger())
    folder = tmp_path / "step-00000005"
    (folder / "manifest.json").unlink()
    with safe_open(folder / "state.safetensors", framework="pt") as file:
        metadata = {name: value for name, value in file.metadata().items() if name != "run"}
    save_file(load_file(folder / "state.safetensors"), folder / "state.safetensors", metadata)
    assert load(tmp_path, loaded, Ledger()) == 5
    assert_equal(saved, loaded)


def test_tensors_are_safetensors_alone(tmp_path: Path) -> None:
    save(tmp_path, 1, fresh(0), Ledger())
    found = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["manifest.json", "state.safetensors"]
