"""Training state on disk: safetensors only, written atomically, exact to the last bit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.files import from_json, replace_folder
from bench.core.manifest import Manifest
from bench.training.distributed.strategy import ParallelStrategy
from bench.training.ledger import Ledger

STATE, MANIFEST = "state.safetensors", "manifest.json"

Parameters = list[tuple[str, nn.Parameter]]


Snapshots = dict[str, dict[str, Tensor]]
"""Copies of the trainable weights by snapshot name and parameter name; see `bench.training.policy.Policy`."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingState:
    """What training changes.

    Attributes:
        parameters: the trainable parameters by name.
        optimizer: their optimizer.
        snapshots: copies of the weights by name.
        strategy: how all of these are laid out over the processes; on disk they are full tensors, so another strategy can
            resume.
        measured: numbers that were measured once, by name.
        average: the moving average of the weights by parameter; empty if there is none.
    """

    parameters: Parameters
    optimizer: torch.optim.Optimizer
    snapshots: Snapshots
    strategy: ParallelStrategy
    measured: dict[str, float] = dataclasses.field(default_factory=dict)
    average: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the state, gathered in full, with its name in a checkpoint; every process must exhaust the iterator."""
        for name, number in self.measured.items():
            yield f"measured/{name}", torch.tensor(number, dtype=torch.float64)
        for snapshot, weights in self.snapshots.items():
            for name, value in weights.items():
                yield f"memory/{snapshot}/{name}", self.strategy.gather_full(value)
        for name, value in self.average.items():
            yield f"average/{name}", self.strategy.gather_full(value)
        for name, parameter in self.parameters:
            yield f"weights/{name}", self.strategy.gather_full(parameter.detach())
            for key, value in self.optimizer.state[parameter].items():
                if isinstance(value, Tensor):
                    yield f"optimizer/{key}/{name}", self.strategy.gather_full(value.detach())
                else:
                    yield f"number/{key}/{name}", torch.tensor(value)

    def restored(self, kind: str, key: str, value: Tensor, parameter: nn.Parameter) -> Tensor | float:
        """A value read from a checkpoint, in the form in which the optimizer keeps it for this parameter."""
        if kind == "number":
            return value.item()
        if key == "step" and not self.optimizer.param_groups[0].get("fused"):
            return value  # unless fused, AdamW keeps its step count on the CPU
        return self.strategy.shard_like(value, parameter)


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Tensor], ledger: Ledger, run: str) -> None:
    """Save the state before ``step`` as ``folder/step-<n>`` and delete older checkpoints.

    Args:
        folder: where a run's checkpoints are.
        step: number of the next step.
        state: see `TrainingState.tensors`.
        ledger: what the training has cost so far.
        run: which run it is, see `bench.records.config.RunConfig.run_id`.
    """
    metadata = {"step": str(step), "ledger": json.dumps(dataclasses.asdict(ledger)), "run": run}
    target = folder / f"step-{step:08d}"

    def write(partial: Path) -> None:
        save_file(dict(state), partial / STATE, metadata)
        Manifest.of(partial / MANIFEST, [partial / STATE]).write()

    replace_folder(target, write)
    for old in checkpoints(folder):
        if old != target:
            shutil.rmtree(old)


def load_checkpoint(folder: Path, state: TrainingState, ledger: Ledger, run: str) -> int:
    """Load the newest checkpoint, in place; returns the step to continue with, 0 when there is none.

    Args:
        folder: where a run's checkpoints are.
        state: what is loaded.
        ledger: what the training had cost; loaded too.
        run: which run it must belong to, see `save_checkpoint`.

    Raises:
        UserError: the checkpoint cannot be read, is not what it was when it was saved, or belongs to other parameters or to
            another run.
    """
    newest = checkpoints(folder)
    if not newest:
        return 0
    path = newest[-1] / STATE
    with _opened(path) as file:
        metadata, by_name = file.metadata() or {}, dict(state.parameters)
        _check_parameters(path, file.keys(), metadata, by_name)
        if metadata.get("run", run) != run:  # older versions did not record it
            raise _unreadable(path, "it belongs to another run, with different settings, data, initial weights or seed")
        for full in file.keys():  # noqa: SIM118 (a safetensors file is not a mapping)
            kind, _, rest = full.partition("/")
            value = file.get_tensor(full)
            if kind == "weights":
                with torch.no_grad():
                    by_name[rest].copy_(state.strategy.shard_like(value, by_name[rest]))
            elif kind == "measured":
                state.measured[rest] = value.item()
            elif kind == "average":
                state.average[rest] = state.strategy.shard_like(value, by_name[rest])
            elif kind == "memory":
                snapshot, _, name = rest.partition("/")
                state.snapshots.setdefault(snapshot, {})[name] = state.strategy.shard_like(value, by_name[name])
            else:
                key, _, name = rest.partition("/")
                state.optimizer.state[by_name[name]][key] = state.restored(kind, key, value, by_name[name])
    for field, value in _spent(path, metadata["ledger"]).items():
        setattr(ledger, field, value)
    return int(metadata["step"])


def _opened(path: Path) -> Any:
    try:
        manifest = Manifest.read(path.with_name(MANIFEST))  # older versions wrote none
        if manifest is not None and (wrong := manifest.problem(path)) is not None:
            raise _unreadable(path, wrong)
        return safe_open(path, framework="pt")
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _check_parameters(path: Path, names: Sequence[str], metadata: Mapping[str, str], known: Collection[str]) -> None:
    """Raise a `UserError` unless a checkpoint holds a state of exactly these parameters."""
    weights = {name.removeprefix("weights/") for name in names if name.startswith("weights/")}
    if "ledger" not in metadata or not metadata.get("step", "").isdecimal():
        raise _unreadable(path, "it does not say which step it is from")
    if differing := sorted(weights ^ set(known)):
        raise _unreadable(path, f"its parameters are not those that are trained: {differing[0]}")


def _spent(path: Path, text: str) -> dict[str, float]:
    """The fields of the ledger that a checkpoint states."""
    try:
        fields: Any = from_json(text)
    except ValueError as error:
        raise _unreadable(path, f"its ledger is damaged: {error}") from error
    known = {field.name for field in dataclasses.fields(Ledger)}
    if not isinstance(fields, dict) or not fields.keys() <= known:
        raise _unreadable(path, "its ledger is not one of this version")
    if wrong := [name for name, value in fields.items() if not isinstance(value, int | float)]:
        raise _unreadable(path, f"{wrong[0]} of its ledger is not a number")
    return fields


def _unreadable(path: Path, reason: object) -> UserError:
    return UserError(
        f"the checkpoint {path} cannot be read ({reason}); restore an intact copy, or delete {path.parent} and run the command "
        "again: training starts over"
    )


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())
