"""`bench run --algo apo` by the real command line: who sees which captions, what is fitted to what, kill and resume, what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from bench.data.cache import to_pixels
from bench.data.reading import read_preferences
from bench.experiments.round import halves
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.find import find_model
from bench.records.reward_models import RewardModelRecord, read_reward_model
from bench.records.runs import RunFolder
from tests.cli.conftest import CommandLine
from tests.cli.test_families import write_model

SIZE = (16, 16)
"""Height and width of the model's pictures."""
STEPS = 2
"""Sampling steps of a picture."""
SETS = (
    "steps=1", "global_batch_size=3", "micro_batch_size=4", "checkpoint_seconds=0", "warmup_steps=0", "precision=fp32",
    "judge_captions=2", "judge_samples=2", "fit.steps=3", "fit.batch=4", "fit.learning_rate=1e-3", "rounds.candidates=2",
)  # fmt: skip
PICTURES = 2 * 2 + 3 * 2
"""Of a round: samples of the judge's captions, and those that the judge chooses from."""


@dataclasses.dataclass(frozen=True)
class ApoLine(CommandLine):
    """The command line with a random network that makes a picture in two steps; with the tiny model's twenty a run takes several times as long."""

    model: Path
    place: str
    """The folder of the model's runs of apo, in the command's."""

    def apo_words(self, *words: str) -> list[str]:
        """Two rounds of one step."""
        return self.arguments(
            "run", "--algo", "apo", "--model", str(self.model), "--data", str(self.data), "--prompts", str(self.prompts),
            "--metrics", "aesthetic", "--name", "small", *(word for each in SETS for word in ("--set", each)), *words,
        )  # fmt: skip

    def run_of(self, name: str = "small") -> RunFolder:
        return RunFolder(self.folder / self.place / name / "seed-0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model("sd15", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def place(model: Path) -> str:
    return f"runs/{find_model(str(model)).name}/apo"


@pytest.fixture
def apo(tmp_path: Path, small_data: tuple[Path, Path], model: Path, place: str) -> ApoLine:
    return ApoLine(tmp_path, *small_data, model, place)


def contents(run: RunFolder) -> dict[str, dict[str, bytes]]:
    """Every tensor that a run in rounds leaves."""
    return {
        path.relative_to(run.folder).as_posix(): {name: value.tobytes() for name, value in load_file(path).items()}
        for path in sorted(run.folder.glob("**/*.safetensors"))
    }


def reward_model(folder: Path) -> RewardModelRecord:
    found = read_reward_model(folder)
    assert found is not None
    return found


def judge(run: RunFolder, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / f"rounds/{number}/judge.json").read_text())
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, Path], model: Path, place: str) -> ApoLine:
    line = ApoLine(tmp_path_factory.mktemp("apo"), *small_data, model, place)
    done = line.run(line.apo_words())
    assert done.returncode == 0, done.stderr
    return line


def test_judge_and_policy_see_disjoint_halves_of_the_captions(whole: ApoLine) -> None:
    run, people = whole.run_of(), read_preferences(whole.data)
    of_judge, of_policy = map(set, halves(people.captions, 0))
    for number in (1, 2):
        place = run.folder / f"rounds/{number}"
        opponents, pairs = (read_preferences(place / name) for name in ("opponents.parquet", "pairs.parquet"))
        assert set(opponents.captions) < of_judge
        assert (len(set(opponents.captions)), len(opponents)) == (2, 4)
        assert set(pairs.captions) < of_policy
        assert judge(run, number)["held_out"]["pairs"] == sum(caption in of_policy for caption in people.captions)


@pytest.mark.slow
def test_adapters_are_trained_in_rounds(apo: ApoLine) -> None:
    done = apo.run(apo.apo_words("--set", "trainable=lora", "--set", "lora_rank=2"))
    assert done.returncode == 0, done.stderr
    run = apo.run_of().folder
    for place, rank in (("rounds/1/weights", 2), ("rounds/2/weights", 2), ("weights", 4)):
        tensors = load_file(run / place / "pytorch_lora_weights.safetensors")
        assert {value.shape[0] for name, value in tensors.items() if "lora_A" in name} == {rank}


def test_every_round_fits_the_reward_model_of_the_round_before(whole: ApoLine) -> None:
    run = whole.run_of()
    first = reward_model(run.folder / "reward")
    assert (first.start, first.opponents) == (None, None)
    assert [judge(run, number)["reward"] for number in (1, 2)] == ["rounds/1/reward", "rounds/2/reward"]
    one, two = (reward_model(run.folder / f"rounds/{number}/reward") for number in (1, 2))
    assert (one.start, two.start) == (first.weights, one.weights)
    assert one.opponents is not None
    assert one.opponents.digest == read_preferences(run.folder / "rounds/1/opponents.parquet").digest
    # The metric that chose the pairs is the round's reward model.
    provenance = json.loads(pq.read_schema(run.folder / "rounds/2/pairs.parquet").metadata[b"bench.provenance"])
    assert provenance[-1]["metrics"]["pickscore"]["weights"] == two.weights


def test_gold_is_the_preferred_picture_by_way_of_the_autoencoder(whole: ApoLine) -> None:
    people = read_preferences(whole.data)
    opponents = read_preferences(whole.run_of().folder / "rounds/1/opponents.parquet")
    model = StableDiffusion.load(str(whole.model), device=torch.device("cpu"))
    assert opponents.preference_0.tolist() == [1.0] * len(opponents)
    for row, caption in enumerate(opponents.captions):
        first = list(people.captions).index(caption)
        winner = people.image(first, 0 if people.preference_0[first] == 1 else 1)
        latents = model.encode_images(to_pixels(winner, SIZE)[None]).mean
        gold = np.asarray(Image.open(io.BytesIO(opponents.encoded[row][0])), dtype=int)
        assert (
            np.abs(gold - model.decode(latents)[0].astype(int)).max() <= 1
        )  # another batch size may round differently
        assert np.abs(gold - np.asarray(winner.resize(SIZE), dtype=int)).max() > 1


def test_the_ledger_counts_samples_scores_and_network_evaluations(whole: ApoLine) -> None:
    run = whole.run_of()
    ledger, held_out = run.ledger(), judge(run, 1)["held_out"]["pairs"]
    fitted = len(read_preferences(whole.data)) - held_out
    assert ledger is not None
    assert ledger["samples"] == 2 * PICTURES
    assert ledger["reference_forwards"] == 2 * PICTURES * STEPS * 2  # guided
    # Two pictures a pair: the scale of the first fit; held-out pairs before and after each of three fits; three steps of four pairs,
    # in the rounds with as many opponents; and the pictures that the judge chooses from.
    assert ledger["reward_calls"] == 2 * (fitted + 3 * 2 * held_out + 12 + 2 * 2 * 12) + 2 * 6
    assert [line["round"] for line in run.steps()] == [1, 2]  # type: ignore[typeddict-item]
    prepared = json.loads((run.folder / "rounds/1/prepared.json").read_text())
    assert prepared["judge"]["held_out"].keys() == {"pairs", "first", "fitted", "fell"}


def test_the_reward_models_of_the_run_are_never_its_primary_endpoint(whole: ApoLine) -> None:
    own, first = (f"fitted:{whole.place}/small/seed-0/{name}" for name in ("rounds/2/reward", "reward"))
    trained_on = whole.run_of().config().trained_on
    assert whole.run_of().config().fits_judge
    assert {own, first, "pickscore"} <= set(trained_on)
    again = whole.run([*whole.apo_words(), "--metrics", f"aesthetic,{own}"])
    assert again.returncode == 0, again.stderr
    assert "training apo" not in again.stderr
    shown = whole.run(whole.arguments("report", "--runs", "runs", "--format", "json", "--primary", own))
    assert shown.returncode == 0, shown.stderr
    row = json.loads(shown.stdout)["rows"][1]
    assert [row["scores"][name]["trained_on"] for name in (own, "aesthetic")] == [True, False]
    assert row["over_reference"] is None


@pytest.mark.slow  # a run of two rounds for each place where it is killed
@pytest.mark.parametrize(
    "after",
    [
        "reward/reward.json", "rounds/1/candidates", "rounds/1/opponents.parquet", "rounds/1/judge.json", "rounds/1/pairs.parquet",
        "rounds/1/DONE", "rounds/2/reward/reward.json", "rounds/2/train.jsonl",
    ],
)  # fmt: skip
def test_a_run_that_was_killed_has_the_same_weights_log_and_cost(whole: ApoLine, apo: ApoLine, after: str) -> None:
    apo.kill_after(apo.apo_words(), apo.run_of().folder / after)
    done = apo.run(apo.apo_words())
    assert done.returncode == 0, done.stderr
    one, other = whole.run_of(), apo.run_of()
    assert contents(one) == contents(other)
    untimed = [
        [{name: value for name, value in dict(each or {}).items() if name not in ("seconds", "peak_memory_bytes")}
         for each in (*run.steps(), run.ledger())]
        for run in (one, other)
    ]  # fmt: skip
    assert untimed[0] == untimed[1]


@pytest.mark.slow  # a run of two rounds
def test_a_reward_model_that_has_become_worse_does_not_judge(whole: ApoLine, apo: ApoLine) -> None:
    """The first reward model is said to have agreed with every held-out pair, which no later one can keep."""
    shutil.copytree(whole.run_of().folder / "reward", apo.run_of().folder / "reward")
    known = apo.run_of().folder / "reward/held_out.npy"
    np.save(known, np.ones_like(np.load(known)))
    done = apo.run(apo.apo_words())
    assert done.returncode == 0, done.stderr
    assert "significantly fewer, so that the one before judges instead" in done.stderr
    run = apo.run_of()
    first = reward_model(run.folder / "reward").weights
    for number in (1, 2):
        assert (judge(run, number)["reward"], judge(run, number)["held_out"]["fell"]) == ("reward", True)
        assert reward_model(run.folder / f"rounds/{number}/reward").start == first


@pytest.mark.slow  # a run of two rounds
def test_a_placebo_sees_shuffled_labels_and_chooses_at_random(whole: ApoLine, apo: ApoLine) -> None:
    shutil.copytree(whole.folder / "runs/.cache", apo.folder / "runs/.cache", dirs_exist_ok=True)
    done = apo.run(apo.apo_words("--labels", "shuffled"))
    assert done.returncode == 0, done.stderr
    one, other = whole.run_of(), apo.run_of("small-placebo")
    labels = [reward_model(run.folder / "reward").data for run in (one, other)]
    assert labels[0].digest == labels[1].digest
    assert labels[0].labels != labels[1].labels
    pictures = [
        set(pq.read_table(run.folder / "rounds/1/pairs.parquet").column("caption").to_pylist()) for run in (one, other)
    ]
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "rounds.judge=gold"), "the metric 'gold' cannot be fitted"),
        (
            ("--limit", "12"),
            "needs at least 20 different captions, one half for the reward model and one for the policy",
        ),
        (("--set", "mode=other"), "mode"),
        (("--set", "fit.steps=0"), "fit.steps"),
        (("--set", "judge_samples=0"), "judge_samples"),
        (
            ("--budget", "pairs=8"),
            "apo would train in rounds, each of which takes the same number of steps; leave --budget out",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(command: CommandLine, words: tuple[str, ...], says: str) -> None:
    data = ("--data", str(command.data), "--prompts", str(command.prompts))
    done = command.run(command.arguments("run", "--algo", "apo", "--model", "tiny", *data, *words))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_unlabelled_data_are_refused(command: CommandLine) -> None:
    table = pq.read_table(command.data)
    pq.write_table(table.drop_columns(["label_0"]), command.folder / "unlabelled.parquet")
    words = ("--data", "unlabelled.parquet", "--prompts", str(command.prompts))
    done = command.run(command.arguments("run", "--algo", "apo", "--model", "tiny", *words))
    assert done.returncode == 2
    assert "apo needs preference pairs, but" in done.stderr


def test_a_model_without_a_recipe_gets_two_rounds(command: CommandLine) -> None:
    planned = command.run(command.arguments("plan", "--algo", "apo", "--model", "sd15"))
    assert planned.returncode == 0, planned.stderr
    # 100 steps of 32 pairs, four candidates each, and 256 captions of the judge with four samples each, twice
    assert f"{2 * (3200 * 4 + 256 * 4):,}" in planned.stdout
    # ... of which each is scored, and three fits of 200 steps of 32 pairs of people's, two of them with as many opponents
    assert f"{2 * 3200 * 4 + 2 * 6400 * 5:,}" in planned.stdout
