"""Every model family goes through online training by the command line; a metric without gradient is refused where one is needed."""

from __future__ import annotations

import json

import pytest
from pipelines import WRITERS

from tests.cli.conftest import CommandLine
from tests.cli.test_families import STEPS, kill_in_training, run_words, write_model

ALGORITHMS = {
    "ddpo": ("group=2", "updates=1", "trained=1", "within=1", "clip=1e-3"),
    "flow-grpo": ("group=2", "trained=1", "within=1", "clip=1e-3"),
    "nft": ("group=2", "trained=1"),
    "draft": (),
    "tailorpo": ("trained=1",),
    "spo": ("first=0", "trained=1", "threshold=0"),
}
FLOWS = ("sdxl-flow", "sd3", "flux")
CASES = [
    (kind, algorithm)
    for kind in WRITERS
    for algorithm in ("flow-grpo" if kind in FLOWS else "ddpo", "nft", "draft", "tailorpo", "spo")
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "algorithm"), CASES)
def test_train_kill_resume_judge_report(command: CommandLine, kind: str, algorithm: str) -> None:
    folder = write_model(kind, command.folder / "my model")
    weights = "lora" if (kind in FLOWS) == (algorithm in ("nft", "tailorpo")) else "full"
    sets = (*ALGORITHMS[algorithm], f"trainable={weights}", "rewards=aesthetic", "sampling_steps=2")
    words = run_words(command, str(folder), algorithm, *sets)
    kill_in_training(command, words)
    continued = command.run(words)
    assert continued.returncode == 0, continued.stderr

    (run,) = command.folder.glob(f"runs/*/{algorithm}/*/seed-0")
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(STEPS))
    assert any(line["gradient_norm"] > 0 for line in lines)
    assert all(line.get("ratio_error", 0) == 0 for line in lines)  # one update from each collection
    ledger = json.loads((run / "ledger.json").read_text())
    assert ledger["samples"] == 2 * STEPS
    (evaluation,) = run.glob("evaluations/*")
    scores = [json.loads(line)["metric"] for line in (evaluation / "scores.jsonl").read_text().splitlines()]
    assert sorted(scores) == ["aesthetic"] * 3 + ["pickscore"] * 3

    table = command.run(command.arguments("report"))
    assert table.returncode == 0, table.stderr
    assert "PickScore" in table.stdout


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
