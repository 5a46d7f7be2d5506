"""Every model family goes through online training by the command line, on one process and on two; a metric without gradient is refused where one is needed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from launches import LAUNCH, launch
from pipelines import WRITERS
from safetensors.torch import load_file
from torch import Tensor

from tests.cli.conftest import CommandLine
from tests.cli.test_families import STEPS, kill_in_training, run_words, write_model

ALGORITHMS = {
    "ddpo": ("group=2", "updates=1", "trained=1", "within=1", "clip=1e-3"),
    "flow-grpo": ("group=2", "trained=1", "within=1", "clip=1e-3", "updates=1", "ema_every=1"),  # sd3's recipe has 8
    "nft": ("group=2", "trained=1"),
    "draft": (),
    "tailorpo": ("trained=1",),
    "spo": ("first=0", "trained=1", "threshold=0"),
}
FLOWS = ("sdxl-flow", "sd3", "flux")
TWO = [*LAUNCH, "--num_processes", "2", "-m"]
SHARED = [
    ("sd15", "ddpo", "full"),
    ("sd15", "draft", "lora"),
    ("sdxl", "nft", "lora"),
    ("sd3", "flow-grpo", "lora"),
    ("sd3", "nft", "full"),
    ("flux", "draft", "full"),
]
"""What two processes train: every family, and full weights and adapters of every kind of algorithm but one."""


def cases() -> Iterator[tuple[str, str, str]]:
    """The main algorithms train all weights and adapters of every family, the others one of them."""
    for kind in WRITERS:
        flow = kind in FLOWS
        yield from itertools.product([kind], ["flow-grpo" if flow else "ddpo", "nft", "draft"], ["full", "lora"])
        yield kind, "tailorpo", "lora" if flow else "full"
        yield kind, "spo", "full" if flow else "lora"


def online_words(command: CommandLine, model: Path, algorithm: str, weights: str) -> list[str]:
    sets = (*ALGORITHMS[algorithm], f"trainable={weights}", "rewards=aesthetic", "sampling_steps=2")
    return run_words(command, str(model), algorithm, *sets)


def change(run: Path, model: Path) -> Tensor:
    """What training did to the network's weights, in one piece; of adapters, the products of their factors."""
    (file,) = run.glob("weights/*.safetensors")
    trained = load_file(file)
    if file.name == "pytorch_lora_weights.safetensors":
        last = [name for name in trained if ".lora_B." in name]
        assert len(trained) == 2 * len(last) > 0
        parts = [trained[name] @ trained[name.replace(".lora_B.", ".lora_A.")] for name in last]
    else:
        (network,) = [folder for folder in (model / "unet", model / "transformer") if folder.exists()]
        base = load_file(network / "diffusion_pytorch_model.safetensors")
        assert trained.keys() == base.keys()
        parts = [value - base[name] for name, value in trained.items()]
    return torch.cat([part.flatten() for part in parts])


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]


def ledger(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "ledger.json").read_text()))


def scores(evaluation: Path) -> dict[tuple[str, int], float]:
    """Scores by metric and prompt."""
    lines = map(json.loads, (evaluation / "scores.jsonl").read_text().splitlines())
    return {(line["metric"], line["prompt_index"]): line["score"] for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "algorithm", "weights"), [*cases()])
def test_train_kill_resume_judge_report(command: CommandLine, kind: str, algorithm: str, weights: str) -> None:
    model = write_model(kind, command.folder / "my model")
    words = online_words(command, model, algorithm, weights)
    kill_in_training(command, words)
    continued = command.run(words)
    assert continued.returncode == 0, continued.stderr

    (run,) = command.folder.glob(f"runs/*/{algorithm}/*/seed-0")
    lines = log(run)
    assert [line["step"] for line in lines] == list(range(STEPS))
    assert any(line["gradient_norm"] > 0 for line in lines)
    assert all(line.get("ratio_error", 0) == 0 for line in lines)  # one update from each collection
    assert ledger(run)["samples"] == 2 * STEPS
    assert (run / "weights" / "pytorch_lora_weights.safetensors").exists() == (weights == "lora")
    assert change(run, model).norm() > 0
    (evaluation,) = run.glob("evaluations/*")
    assert scores(evaluation).keys() == set(itertools.product(["aesthetic", "pickscore"], range(3)))

    table = command.run(command.arguments("report"))
    assert table.returncode == 0, table.stderr
    assert "PickScore" in table.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "algorithm", "weights"), SHARED)
def test_two_processes_train_what_one_does_and_one_judges_it(
    command: CommandLine, kind: str, algorithm: str, weights: str
) -> None:
    """Six samples in micro-batches of two: three for each process, so that some group of two has a sample in both."""
    model = write_model(kind, command.folder / "my model")
    words = online_words(command, model, algorithm, weights)
    words[words.index("global_batch_size=2")] = "global_batch_size=6"
    alone = command.run([*words, "--runs", "one"])
    assert alone.returncode == 0, alone.stderr
    shared = command.run([*TWO, *words[2:], "--runs", "two", "--metrics", "aesthetic", "--sampling-steps", "1"])
    assert shared.returncode == 0, shared.stderr
    assert shared.stderr.count("2 processes share the work") == 1

    one, two = (next(command.folder.glob(f"{runs}/*/{algorithm}/*/seed-0")) for runs in ("one", "two"))
    assert two.relative_to(command.folder / "two") == one.relative_to(command.folder / "one")
    logs = log(one), log(two)
    for lonely, joint in zip(*logs, strict=True):
        for name in ("reward", "gradient_norm"):
            assert joint[name] == pytest.approx(lonely[name], rel=1e-3)
    measured = {"seconds", "peak_memory_bytes"}
    counts = [{name: count for name, count in ledger(run).items() if name not in measured} for run in (one, two)]
    assert counts[0] == counts[1]
    samples = 6 * STEPS
    assert counts[1]["samples"] == counts[1]["pairs"] == samples
    assert counts[1]["reward_calls"] in (samples + 2, 3 * samples + 2)  # three of each by draft's recipe for sd15
    moved = change(one, model)
    apart = moved - change(two, model)
    assert apart.norm() < 0.01 * moved.norm()  # Adam turns rounding of small gradients into steps

    # a single process judges what two have trained, and trains nothing again
    judged = command.run([*words, "--runs", "two"])
    assert judged.returncode == 0, judged.stderr
    assert log(two) == logs[1]
    (evaluation,) = one.glob("evaluations/*")
    assert scores(two / "evaluations" / evaluation.name) == pytest.approx(scores(evaluation), rel=1e-2, abs=1e-2)
    bases = [run.parents[2] / "base" / "evaluations" / evaluation.name for run in (one, two)]
    assert scores(bases[0]) == scores(bases[1])
    table = command.run(command.arguments("report", "--runs", "two", "--protocol", evaluation.name))
    assert table.returncode == 0, table.stderr
    assert "PickScore" in table.stdout


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["flow-grpo", "ddpo"])
def test_two_processes_of_which_one_is_killed_within_a_collection_go_on_as_if_it_had_not_been(
    command: CommandLine, algorithm: str
) -> None:
    model = write_model("sd3" if algorithm == "flow-grpo" else "sd15", command.folder / "my model")
    words = [word.replace("updates=1", "updates=3") for word in online_words(command, model, algorithm, "lora")]
    words[words.index("global_batch_size=2")] = "global_batch_size=6"
    straight = launch([*words[3:], "--runs", "straight"], command.folder)
    assert straight.returncode == 0, straight.stderr
    killed = launch([*words[3:], "--runs", "killed"], command.folder, fail="1:STEP:kill")
    assert killed.codes[1] < 0, killed.stderr
    assert not list(command.folder.glob(f"killed/*/{algorithm}/*/seed-0/DONE"))
    continued = launch([*words[3:], "--runs", "killed"], command.folder)
    assert "resuming" in continued.stderr
    assert continued.returncode == 0, continued.stderr

    runs = [next(command.folder.glob(f"{name}/*/{algorithm}/*/seed-0")) for name in ("straight", "killed")]
    one, two = (load_file(next(run.glob("weights/*.safetensors"))) for run in runs)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert [line["reward"] for line in log(runs[0])] == [line["reward"] for line in log(runs[1])]
    measured = {"seconds", "peak_memory_bytes"}
    counts = [{name: count for name, count in ledger(run).items() if name not in measured} for run in runs]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("algorithm", ["draft", pytest.param("tailorpo-g", marks=pytest.mark.slow)])
def test_a_metric_without_gradient_is_refused_in_a_sentence(command: CommandLine, algorithm: str) -> None:
    done = command.run(command.train_words("--set", "rewards=gold", algo=algorithm))
    assert done.returncode == 2
    (sentence,) = [line for line in done.stderr.splitlines() if "gradient of the reward" in line]
    assert (
        f"{algorithm} needs a gradient of the reward, but the metric 'gold' does not have one; choose pickscore"
        in sentence
    )
    assert "Traceback" not in done.stderr
    assert not list(command.folder.glob("runs/**/config.json"))
