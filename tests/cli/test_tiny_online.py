"""Every online method takes a step of the tiny world by the command line, from one experiment file."""

from __future__ import annotations

import json
import math
from typing import Any

from safetensors.numpy import load_file

from bench.core.registry import is_ours
from bench.records.runs import RunFolder
from bench.tiny import ASSETS
from bench.training.algorithm import ALGORITHMS
from bench.training.online import SamplingAlgorithm
from tests.cli.conftest import CommandLine

SMALL: dict[str, Any] = {
    "rewards": "imagereward", "sampling_steps": 4, "group": 2, "trained": 1, "within": 2, "first": 2, "threshold": 0, "ceiling": 100, "clip": 1e-2,
}  # fmt: skip
"""Fields of the algorithms that have them; the recipes of the tiny world say the rest."""
TRAINING = {"steps": 1, "global_batch_size": 4, "micro_batch_size": 4, "warmup_steps": 0}


def online() -> list[str]:
    kinds = {name: ALGORITHMS.get(name) for name in ALGORITHMS if is_ours(ALGORITHMS.point(name))}
    return [name for name, kind in kinds.items() if issubclass(kind, SamplingAlgorithm)]


def table(name: str) -> str:
    """The part of an experiment file about an algorithm; JSON's numbers and strings are TOML's too."""
    fields = {field: value for field, value in SMALL.items() if field in ALGORITHMS.get(name).model_fields}
    settings = ", ".join(f"{field} = {json.dumps(value)}" for field, value in {**fields, **TRAINING}.items())
    return f'[[algorithms]]\nname = "{name}"\nsettings = {{ {settings} }}\n'


def test_a_step_changes_the_weights_and_is_judged(command: CommandLine) -> None:
    names = online()
    assert len(names) >= 12
    (command.folder / "online.toml").write_text(
        f'model = "tiny"\ndata = "{command.data}"\nprompts = "{command.prompts}"\nmetrics = ["gold"]\nimages = {{ steps = 2 }}\n'
        + "".join(map(table, names))
    )
    done = command.run(command.arguments("run", "online.toml"))
    assert done.returncode == 0, done.stderr
    base = load_file(ASSETS / "model/unet/diffusion_pytorch_model.safetensors")
    for name in names:
        (folder,) = (command.folder / f"runs/tiny/{name}").glob("*/seed-0")
        run = RunFolder(folder)
        assert run.done
        (line,) = run.steps()
        assert math.isfinite(line["loss"])
        ledger = run.ledger()
        assert ledger is not None
        assert ledger["samples"] >= 4
        assert ledger["reward_calls"] >= 4
        trained = load_file(next(run.weights.glob("*.safetensors")))
        # Second factors of adapters are 0 at first; other weights were the base's.
        changes = [value for name, value in trained.items() if "lora_B" in name]
        changes = changes or [value - base[name] for name, value in trained.items()]
        assert any(value.any() for value in changes), name
        assert list(folder.glob("evaluations/*/DONE"))
