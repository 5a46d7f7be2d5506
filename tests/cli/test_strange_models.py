"""The commands that take a model refuse a strange folder in one sentence, and nothing of it runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.tiny import ASSETS
from tests.cli.conftest import CommandLine

COMMANDS = {
    "run": ("run", "--algo", "dpo", "--set", "steps=1"),
    "eval": ("eval",),
    "plan": ("plan", "--algo", "dpo"),
    "profile": ("profile", "--algo", "dpo"),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ASSETS / "model", tmp_path / "model"))


def refusal(command: CommandLine, name: str, model: Path) -> str:
    words = command.arguments(*COMMANDS[name], "--model", str(model))
    words += ["--data", str(command.data), "--prompts", str(command.prompts)] if name == "run" else []
    words += ["--prompts", str(command.prompts)] if name == "eval" else []
    done = command.run(words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_an_empty_index(command: CommandLine, model: Path, name: str) -> None:
    (model / "model_index.json").write_text("")
    assert "model_index.json is empty" in refusal(command, name, model)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_class_of_the_folders_own(command: CommandLine, model: Path, name: str) -> None:
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "unet": ["evil", "Evil"]}))
    (model / "unet" / "evil.py").write_text("open('ran', 'w')\n")
    assert "component 'unet' is a evil Evil, which is not supported" in refusal(command, name, model)
    assert not (command.folder / "ran").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_single_file(command: CommandLine, tmp_path: Path, name: str) -> None:
    (tmp_path / "single.safetensors").write_bytes(b"")
    assert "single.safetensors is a single file" in refusal(command, name, tmp_path / "single.safetensors")


@pytest.mark.parametrize("steps", ["1000", "1001"])
def test_as_many_sampling_steps_as_training_steps(command: CommandLine, steps: str) -> None:
    done = command.run(command.arguments("eval", "--model", "tiny", "--sampling-steps", steps))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "trained with" in done.stderr


@pytest.mark.parametrize("scheduler", ["ScoreSdeVpScheduler", "UNet2DConditionModel", "FlaxDDIMScheduler", "__name__"])
def test_a_class_that_is_not_a_sampler(command: CommandLine, scheduler: str) -> None:
    done = command.run(command.arguments("eval", "--model", "tiny", "--image", f"scheduler={scheduler}"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert scheduler in done.stderr
