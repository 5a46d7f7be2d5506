"""Every model family goes through train, resume, sample, score and report by the command line."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from pipelines import WRITERS

from bench.tiny import ASSETS
from tests.cli.conftest import CommandLine

SCORERS = {"aesthetic": str(ASSETS / "scorers" / "aesthetic"), "pickscore": str(ASSETS / "scorers" / "pickscore")}
WORK = {
    "sd15": ("inpo", "full"),
    "sdxl": ("smpo", "full"),
    "sdxl-flow": ("dpo", "full"),
    "sd3": ("dpo", "full"),
    "flux": ("dpo", "lora"),
}
QUICK = ("flux",)
"""Those that the default suite runs: sd15 is the tiny model's family, and flux has most of its own."""
STEPS = 5


def write_model(kind: str, folder: Path) -> Path:
    WRITERS[kind](folder)
    (folder / "bench.json").write_text(json.dumps({"generation": {"steps": 2}, "metrics": SCORERS}))
    return folder


def run_words(command: CommandLine, model: str, algo: str, *sets: str) -> list[str]:
    prompts = command.folder / "prompts.txt"
    prompts.write_text("a bee on a red background\na large tree\na cat\n")
    settings = (
        f"steps={STEPS}", "global_batch_size=2", "micro_batch_size=2", "warmup_steps=0", "checkpoint_seconds=0", "precision=fp32", *sets,
    )  # fmt: skip
    return command.arguments(
        "run", "--algo", algo, "--model", model, "--data", str(command.data), "--prompts", str(prompts),
        *(word for setting in settings for word in ("--set", setting)),
    )  # fmt: skip


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in WRITERS]
)
def test_train_resume_sample_score_report(command: CommandLine, kind: str) -> None:
    folder = write_model(kind, command.folder / "my model")
    algo, weights = WORK[kind]
    words = run_words(command, str(folder), algo, f"weights={weights}")
    kill_in_training(command, words)
    continued = command.run(words)
    assert continued.returncode == 0, continued.stderr

    (base,) = command.folder.glob("runs/*/base")
    assert base.parent.name.startswith("my-model-")
    (run,) = command.folder.glob(f"runs/*/{algo}/*/seed-0")
    steps = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(STEPS))
    assert steps[0]["margin"] == 0
    assert any(step["margin"] != 0 for step in steps[1:])
    (evaluation,) = run.glob("evaluations/*")
    assert len(list((evaluation / "images").glob("*.png"))) == 3
    scores = [json.loads(line)["metric"] for line in (evaluation / "scores.jsonl").read_text().splitlines()]
    assert sorted(scores) == ["aesthetic"] * 3 + ["pickscore"] * 3

    table = command.run(command.arguments("report"))
    assert table.returncode == 0, table.stderr
    assert "PickScore" in table.stdout


def kill_in_training(command: CommandLine, words: list[str]) -> None:
    process = command.start(words)
    try:
        while not list(command.folder.glob("runs/*/*/*/seed-0/checkpoints/step-*")):
            assert process.poll() is None, "the run ended before its first checkpoint"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(command.folder.glob("runs/*/*/*/seed-0/DONE"))


def refusal(command: CommandLine, model: str) -> str:
    done = command.run(run_words(command, model, "dpo"))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(command.folder.glob("runs/**/config.json"))
    return done.stderr


def test_weights_cut_short_are_refused_before_anything_is_written(command: CommandLine) -> None:
    file = write_model("sdxl", command.folder / "net") / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert "diffusion_pytorch_model.safetensors is truncated" in refusal(command, "net")


def test_a_size_that_does_not_divide_is_refused_before_anything_is_written(command: CommandLine) -> None:
    folder = write_model("flux", command.folder / "net")
    (folder / "bench.json").write_text(json.dumps({"generation": {"height": 18}, "metrics": SCORERS}))
    assert "height and width must be multiples of 4 for this model" in refusal(command, str(folder))


def test_a_folder_of_ones_own_trains_its_familys_recipe_on_no_more_pairs_than_there_are(command: CommandLine) -> None:
    write_model("sd15", command.folder / "net")
    words = run_words(command, "net", "dpo", "steps=1")
    for setting in (f"steps={STEPS}", "global_batch_size=2"):
        at = words.index(setting)
        del words[at - 1 : at + 1]
    done = command.run(words)
    assert done.returncode == 0, done.stderr
    said = "settings are sd15's recipe for dpo, global_batch_size lowered from 2048 to 48: there are 48 pairs"
    assert f"note: {said}" in done.stderr
    (run,) = command.folder.glob("runs/*/dpo/*/seed-0")
    assert run.parent.name.startswith("set-")
    config = json.loads((run / "config.json").read_text())
    assert config["resolved"]["training"]["global_batch_size"] == 48
    assert config["changed"]["global_batch_size"] == "48"
