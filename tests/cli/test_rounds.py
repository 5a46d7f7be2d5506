"""`bench run --rounds N` by the real command line: what each round trains on, kill and resume, cost, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from bench.data.reading import read_preferences
from bench.experiments.rounds import best_and_worst
from bench.records.runs import RunFolder
from tests.cli.conftest import CommandLine

SHUFFLED = "shuffled-placebo"
"""The name of a run on shuffled labels that was to be called ``shuffled``."""
SETS = ("rounds.judge=aesthetic", "rounds.candidates=2", "rounds.number=2", "global_batch_size=4", "micro_batch_size=4")


def rounds_words(command: CommandLine, *words: str) -> list[str]:
    """Two rounds of two steps on four pairs each."""
    made = command.train_words("--name", "rounds", *(word for each in SETS for word in ("--set", each)), *words)
    for given in ("steps=6", "global_batch_size=4", "micro_batch_size=4"):  # the first of each
        place = made.index(given)
        del made[place - 1 : place + 1]
    return [*made, "--set", "steps=2"]


def run_of(command: CommandLine, name: str = "rounds") -> RunFolder:
    return RunFolder(command.folder / f"runs/tiny/dpo/{name}/seed-0")


def weights(folder: Path) -> dict[str, bytes]:
    (file,) = folder.glob("weights/*.safetensors")
    return {name: value.tobytes() for name, value in load_file(file).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, Path]) -> CommandLine:
    command = CommandLine(tmp_path_factory.mktemp("rounds"), *small_data)
    done = command.run(rounds_words(command))
    assert done.returncode == 0, done.stderr
    return command


def test_each_round_trains_on_pictures_by_the_weights_of_the_round_before(whole: CommandLine) -> None:
    run = run_of(whole)
    places = [RunFolder(run.folder / "rounds" / str(number)) for number in (1, 2)]
    captions = set(pq.read_table(whole.data).column("caption").to_pylist())
    digests = set()
    for place in places:
        pairs = read_preferences(place.folder / "pairs.parquet")
        assert set(pairs.captions) <= captions
        assert len(pairs) <= 2 * 4  # what two steps of four pairs can see
        assert pairs.judges == ("aesthetic",)
        digests.add(pairs.digest)
    assert len(digests) == 2
    assert weights(run.folder) == weights(places[1].folder) != weights(places[0].folder)
    config = run.config()
    assert config.trained_on == ("aesthetic",)
    assert config.resolved.rewards is not None
    assert config.resolved.rewards.keys() == {"aesthetic"}


def test_the_log_and_the_ledger_are_those_of_all_rounds(whole: CommandLine) -> None:
    run = run_of(whole)
    lines = run.steps()
    assert [(line["step"], line["pairs"], line["round"]) for line in lines] == [  # type: ignore[typeddict-item]
        (0, 4, 1), (1, 8, 1), (2, 12, 2), (3, 16, 2),
    ]  # fmt: skip
    # Policy and reference are the same at the start of every round.
    assert [abs(line["margin"]) < 1e-6 for line in lines] == [True, False, True, False]  # type: ignore[typeddict-item]
    ledger = run.ledger()
    assert ledger is not None
    made = [json.loads((run.folder / f"rounds/{n}/prepared.json").read_text()) for n in (1, 2)]
    pictures = sum(each["samples"] for each in made)
    assert pictures == 2 * 8 * 2  # two rounds of eight captions with two pictures each
    assert (ledger["samples"], ledger["reward_calls"]) == (pictures, pictures)
    # Training calls the reference once for each of 16 pairs' two pictures; the tiny model's own 20 guided steps make a picture.
    assert ledger["reference_forwards"] == 16 * 2 + pictures * 20 * 2
    assert ledger["pairs"] == 16
    # The time of generating and judging counts, in the log too.
    trained = [RunFolder(run.folder / f"rounds/{n}").ledger() for n in (1, 2)]
    assert ledger["seconds"] == pytest.approx(sum(each["seconds"] for each in (*made, *trained) if each))
    assert all(each["seconds"] > 0 for each in made)
    assert lines[0]["seconds"] > made[0]["seconds"]
    assert lines[2]["seconds"] > lines[1]["seconds"] + made[1]["seconds"]


def test_how_pictures_are_made_is_part_of_what_the_run_is(whole: CommandLine) -> None:
    training = run_of(whole).config().resolved.training
    assert training is not None
    rounds = training.to_json()["rounds"]
    assert (rounds["number"], rounds["generation"]["steps"], rounds["generation"]["guidance_scale"]) == (2, 20, 3.0)
    assert "seed" not in rounds["generation"]
    assert training.length == "4"


def test_captions_whose_pictures_are_equally_good_are_left_out() -> None:
    rows, best, worst = best_and_worst(np.array([[1.0, 1.0, 1.0], [0.5, 2.0, 0.5], [3.0, 3.0, -1.0]]))
    assert (rows.tolist(), best.tolist(), worst.tolist()) == ([1, 2], [1, 0], [0, 2])


@pytest.mark.slow
def test_shuffled_labels_and_other_first_weights(whole: CommandLine, command: CommandLine) -> None:
    """One round from the weights of a run: its pairs are that run's pictures, and shuffling changes the labels alone."""
    shutil.copytree(whole.folder / "runs", command.folder / "runs")
    for name, words in (("further", ()), ("shuffled", ("--labels", "shuffled"))):
        made = rounds_words(command, "--init", "tiny/dpo/rounds/seed-0", *words)
        made[made.index("rounds.number=2")] = "rounds.number=1"
        done = command.run([*made, "--name", name])
        assert done.returncode == 0, done.stderr
        assert "round 1 of 1: training dpo" in done.stderr
    pairs = {name: run_of(command, name).folder / "rounds/1/pairs.parquet" for name in ("rounds", "further", SHUFFLED)}
    digests = {name: read_preferences(path).digest for name, path in pairs.items()}
    assert digests["further"] == digests[SHUFFLED] != digests["rounds"]
    assert weights(run_of(command, "further").folder) != weights(run_of(command, SHUFFLED).folder)
    assert run_of(command, "further").steps()[0]["margin"] == pytest.approx(0, abs=1e-6)


def test_it_is_a_row_of_the_report(whole: CommandLine) -> None:
    shown = whole.run(whole.arguments("report", "--runs", "runs", "--format", "json"))
    assert shown.returncode == 0, shown.stderr
    row = json.loads(shown.stdout)["rows"][1]
    assert row["scores"]["aesthetic"]["trained_on"] is True
    assert row["scores"]["gold"]["trained_on"] is False


def test_adapters_of_all_rounds_are_joined(command: CommandLine) -> None:
    """Each round trains adapters of its own on what the rounds before made of the model; together they are the run's."""
    words = rounds_words(command, "--set", "trainable=lora", "--set", "lora_rank=2", "--set", "learning_rate=1e-2")
    done = command.run(words)
    assert done.returncode == 0, done.stderr
    run = run_of(command)
    rounds = [RunFolder(run.folder / f"rounds/{number}") for number in (1, 2)]
    assert (
        read_preferences(rounds[0].folder / "pairs.parquet").digest
        != read_preferences(rounds[1].folder / "pairs.parquet").digest
    )
    # The reference of a round is the model at its start, so its first margin is 0 before anything is trained.
    assert [abs(line["margin"]) < 1e-5 for line in run.steps()] == [True, False, True, False]
    own, joined = [effects(each.folder) for each in rounds], effects(run.folder)
    assert joined
    assert joined.keys() == own[0].keys() == own[1].keys()
    for layer, effect in joined.items():
        np.testing.assert_allclose(effect, own[0][layer] + own[1][layer], rtol=0, atol=1e-6)
    assert all(max(np.abs(effect).max() for effect in each.values()) > 1e-4 for each in own)


def effects(folder: Path) -> dict[str, np.ndarray]:
    """What adapters add to the weights, by layer."""
    tensors = load_file(folder / "weights/pytorch_lora_weights.safetensors")
    layers = {name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")}
    return {layer: tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"] for layer in layers}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["smpo", "inpo", "kto"])
def test_other_methods_on_pairs_are_trained_in_rounds(command: CommandLine, algorithm: str) -> None:
    """They invert images, call a reward model or look at a whole batch, on the pairs of each round."""
    words = rounds_words(command)
    words[words.index("dpo")] = algorithm
    done = command.run(words)
    assert done.returncode == 0, done.stderr
    run = RunFolder(command.folder / f"runs/tiny/{algorithm}/rounds/seed-0")
    assert [line["round"] for line in run.steps()] == [1, 1, 2, 2]  # type: ignore[typeddict-item]


@pytest.mark.slow
def test_two_processes_make_the_pairs_once_and_train_as_one(whole: CommandLine, command: CommandLine) -> None:
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = command.run([*two, *rounds_words(command)[2:]])
    assert done.returncode == 0, done.stderr
    one, other = run_of(whole), run_of(command)
    # The first round's pairs are by the same weights; those of the second differ by rounding.
    assert [read_preferences(run.folder / "rounds/1/pairs.parquet").digest for run in (one, other)] == [
        read_preferences(one.folder / "rounds/1/pairs.parquet").digest
    ] * 2
    assert [line["loss"] for line in other.steps()[:2]] == pytest.approx(
        [line["loss"] for line in one.steps()[:2]], rel=1e-3
    )
    assert len(other.steps()) == 4
    costs = [run.ledger() for run in (one, other)]
    for name in ("pairs", "samples", "reward_calls", "policy_forwards", "reference_forwards"):
        assert costs[0] is not None
        assert costs[1] is not None
        assert costs[0][name] == costs[1][name]  # type: ignore[literal-required]


@pytest.mark.slow
def test_adapters_of_a_run_that_was_killed_are_the_same(command: CommandLine) -> None:
    words = rounds_words(command, "--set", "trainable=lora", "--set", "lora_rank=2")
    done = command.run([*words, "--runs", str(command.folder / "straight")])
    assert done.returncode == 0, done.stderr
    command.kill_after(words, run_of(command).folder / "rounds/2/train.jsonl")
    done = command.run(words)
    assert done.returncode == 0, done.stderr
    assert weights(run_of(command).folder) == weights(command.folder / "straight/tiny/dpo/rounds/seed-0")


@pytest.mark.slow
@pytest.mark.parametrize("after", ["rounds/1/pairs.parquet", "rounds/1/DONE", "rounds/2/train.jsonl"])
def test_a_run_that_was_killed_has_the_same_weights_log_and_cost(
    whole: CommandLine, command: CommandLine, after: str
) -> None:
    command.kill_after(rounds_words(command), run_of(command).folder / after)
    done = command.run(rounds_words(command))
    assert done.returncode == 0, done.stderr
    one, other = run_of(whole), run_of(command)
    assert weights(one.folder) == weights(other.folder)
    timed = ("seconds", "peak_memory_bytes")

    def untimed(values: object) -> object:
        assert isinstance(values, dict)
        return {name: value for name, value in values.items() if name not in timed}

    assert [untimed(line) for line in one.steps()] == [untimed(line) for line in other.steps()]
    assert untimed(one.ledger()) == untimed(other.ledger())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--algo", "ddpo"), "does not train on pairs"),
        (("--algo", "dpo", "--budget", "pairs=8"), "leave --budget out"),
        (("--algo", "dpo", "--set", "rounds.judge=nosuch"), "unknown metric 'nosuch'"),
        (("--algo", "dpo", "--evaluate-every", "1"), "follow a single training"),
    ],
)
def test_what_does_not_fit_is_one_sentence(command: CommandLine, words: tuple[str, ...], says: str) -> None:
    data = ("--data", str(command.data), "--prompts", str(command.prompts))
    done = command.run(command.arguments("run", "--model", "tiny", "--rounds", "2", *data, *words))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
