"""``bench run --placebo`` and ``--labels``, on pairs whose first image is always preferred."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from bench.records.runs import RunFolder
from tests.cli.conftest import CommandLine

PLACEBO = "recipe-0-placebo"


@dataclasses.dataclass(frozen=True)
class Certain:
    """The command line on data whose labels are all 1, with few steps and prompts."""

    command: CommandLine

    def words(self, *words: str, algo: str, name: str = "recipe-0") -> list[str]:
        return self.command.train_words(
            *("--metrics", "gold", "--name", name, *words), algo=algo
        )  # fmt: skip

    def run(self, *words: str, algo: str = "sft", name: str = "recipe-0") -> Any:
        return self.command.run(self.words(*words, algo=algo, name=name))

    def folder(self, algorithm: str, name: str, seed: int = 0) -> RunFolder:
        return RunFolder(self.command.folder / "runs" / "tiny" / algorithm / name / f"seed-{seed}")


def certain_in(folder: Path, data: Path, prompts: Path) -> Certain:
    table = pq.read_table(data)
    ones = pa.array([1.0] * len(table))
    pq.write_table(table.set_column(table.column_names.index("label_0"), "label_0", ones), folder / "certain.parquet")
    (folder / "two.txt").write_text("\n".join(prompts.read_text().splitlines()[:2]) + "\n")
    return Certain(CommandLine(folder, folder / "certain.parquet", folder / "two.txt"))


@pytest.fixture
def certain(tmp_path: Path, small_data: tuple[Path, Path]) -> Certain:
    return certain_in(tmp_path, *small_data)


def weights(run: RunFolder) -> dict[str, NDArray[Any]]:
    (file,) = run.weights.glob("*.safetensors")
    return dict(load_file(file))


def same(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("algorithm", "shuffled"),
    [
        ("sft", "the winner, on which it trains, is chosen at random"),
        pytest.param(
            "smpo", "the rewards of each pair's images are swapped with probability 1/2", marks=pytest.mark.slow
        ),
    ],
)
def test_every_run_gets_a_twin_on_shuffled_preferences_and_finished_twins_are_skipped(
    certain: Certain, algorithm: str, shuffled: str
) -> None:
    done = certain.run("--placebo", algo=f"{algorithm},self-npo")
    assert done.returncode == 0, done.stderr
    assert f"note: {algorithm}/recipe-0-placebo is the placebo of recipe-0: {shuffled}" in done.stderr
    assert "note: self-npo has no placebo: it reads no preferences" in done.stderr
    assert f"run 2 of 3, placebo: training {algorithm}" in done.stderr
    finished = [line for line in done.stderr.splitlines() if line.startswith("done:")]
    runs = certain.command.folder / "runs"
    assert finished == [
        f"done: {runs}/tiny/{place}/seed-0"
        for place in (f"{algorithm}/recipe-0", f"{algorithm}/{PLACEBO}", "self-npo/recipe-0")
    ]
    run, twin = certain.folder(algorithm, "recipe-0"), certain.folder(algorithm, PLACEBO)
    one, other = run.config(), twin.config()
    assert (one.labels, one.placebo_of, other.labels, other.placebo_of) == ("as given", None, "shuffled", "recipe-0")
    assert one.resolved.to_json() | {"training": None} == other.resolved.to_json() | {"training": None}
    assert not same(weights(run), weights(twin))
    assert certain.folder("self-npo", "recipe-0").config().placebo == ""
    # smpo and its placebo share the rewards
    assert len(list(runs.glob(".cache/*/scores-*.npy"))) == (1 if algorithm == "smpo" else 0)
    before = {path: path.stat().st_mtime_ns for path in runs.glob("**/*.json*")}
    again = certain.run("--placebo", algo=f"{algorithm},self-npo")
    assert again.returncode == 0, again.stderr
    assert "training" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in runs.glob("**/*.json*")} == before


@pytest.mark.slow
def test_labels_shuffled_is_the_twin_itself_under_the_same_name(certain: Certain) -> None:
    assert certain.run("--labels", "shuffled").returncode == 0
    twin = certain.folder("sft", PLACEBO)
    assert (twin.config().labels, twin.config().placebo_of, twin.config().label) == (
        "shuffled",
        "recipe-0",
        "SFT (recipe-0, placebo)",
    )
    assert not certain.folder("sft", "recipe-0").folder.exists()
    trained = twin.train_log.stat().st_mtime_ns
    both = certain.run("--placebo", "--seeds", "0,1")
    assert both.returncode == 0, both.stderr
    assert "run 1 of 4: training sft" in both.stderr
    assert "run 3 of 4, placebo: training" not in both.stderr
    assert "run 4 of 4, placebo: training sft" in both.stderr
    assert twin.train_log.stat().st_mtime_ns == trained
    assert not same(weights(twin), weights(certain.folder("sft", PLACEBO, seed=1)))


def test_a_placebo_is_named_like_its_run_and_cannot_take_its_place(certain: Certain) -> None:
    done = certain.command.run(certain.command.train_words("--metrics", "gold", "--labels", "shuffled", algo="sft"))
    assert done.returncode == 0, done.stderr
    (config,) = certain.command.folder.glob("runs/tiny/sft/*/seed-0/config.json")
    name = config.parent.parent.name
    assert name.startswith("set-")
    assert name.endswith("-placebo")
    read = RunFolder(config.parent).config()
    assert read.placebo_of == name.removesuffix("-placebo")
    assert read.label == "SFT (steps=6, global_batch_size=4, warmup_steps=0, placebo)"
    assert "labels" not in read.changed
    refused = certain.command.run(certain.command.train_words("--metrics", "gold", "--name", name, algo="sft"))
    assert refused.returncode == 2
    assert "holds a run that differs in training.labels ('shuffled' and 'as given')" in refused.stderr


def test_what_has_no_placebo_and_what_contradicts_it_is_refused(certain: Certain) -> None:
    for words, algo, said in (
        (
            ("--labels", "shuffled"),
            "self-npo",
            "self-npo has no placebo: it reads no preferences; leave --labels shuffled out",
        ),
        (("--labels", "shuffled", "--placebo"), "sft", "leave --labels shuffled out"),
    ):
        refused = certain.run(*words, algo=algo)
        assert refused.returncode == 2
        assert said in refused.stderr
    table = pq.read_table(certain.command.data).drop_columns(["label_0"])
    pq.write_table(table, certain.command.data)
    refused = certain.run("--labels", "shuffled", algo="seppo")
    assert refused.returncode == 2
    assert "the data has neither labels nor scores to shuffle" in refused.stderr
    assert not (certain.command.folder / "runs" / "tiny").exists()


@pytest.mark.slow
def test_a_killed_placebo_goes_on_and_equals_one_that_never_stopped(
    certain: Certain, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = certain_in(tmp_path_factory.mktemp("whole"), certain.command.data, certain.command.prompts)
    assert whole.run("--labels", "shuffled").returncode == 0
    log = certain.folder("sft", PLACEBO).train_log
    process = certain.command.start(certain.words("--labels", "shuffled", algo="sft"))
    try:
        while not log.exists() or len(log.read_text().splitlines()) < 2:
            assert process.poll() is None, "the run ended before its second step"
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    continued = certain.run("--labels", "shuffled")
    assert continued.returncode == 0, continued.stderr
    assert same(weights(certain.folder("sft", PLACEBO)), weights(whole.folder("sft", PLACEBO)))
    assert json.loads(log.read_text().splitlines()[-1])["step"] == 5
