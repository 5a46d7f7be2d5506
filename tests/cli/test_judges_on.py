"""`bench report --judges-on`: the metrics of a report against people's votes, by the real command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

import bench
from bench.data.writing import write_data
from bench.tiny import ASSETS
from tests.cli.conftest import CommandLine

TIED = 5
"""Of the votes, the first ones that are ties."""


@pytest.fixture(scope="module")
def judged(uninterrupted: Path, small_data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run with the scores of all metrics."""
    line = CommandLine(tmp_path_factory.mktemp("judged"), *small_data)
    shutil.copytree(uninterrupted, line.folder / "runs")
    done = line.run(line.train_words("--metrics", "gold,pickscore,hpsv2,imagereward,aesthetic"))
    assert done.returncode == 0, done.stderr
    return line.folder / "runs"


@pytest.fixture
def votes(judged: Path, command: CommandLine) -> Path:
    """Pairs of the tiny world, of which the first are ties, beside the runs."""
    shutil.copytree(judged, command.folder / "runs")
    table = pq.read_table(command.data)
    labels = [0.5] * TIED + table["label_0"].to_pylist()[TIED:]
    path = command.folder / "votes.parquet"
    pq.write_table(table.set_column(table.column_names.index("label_0"), "label_0", pa.array(labels)), path)
    return path


def report(command: CommandLine, *words: str) -> Any:
    return command.run(command.arguments("report", "--runs", "runs", *words))


def test_every_metric_is_compared_with_the_votes_once(command: CommandLine, votes: Path) -> None:
    done = report(command, "--judges-on", "votes.parquet", "--output", "report.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((command.folder / "report.json").read_text())
    by_metric = {each["metric"]: each for each in found["agreements"]}
    assert set(by_metric) == {"gold", "pickscore", "hpsv2", "imagereward", "aesthetic"}
    assert {(each["pairs"], each["tied"]) for each in by_metric.values()} == {(48, TIED)}
    assert by_metric["gold"]["decided"]["mean"] > 0.6  # votes are drawn by the utility that gold measures
    # by hand, from the scores of pickscore that the cache keeps
    (kept,) = (command.folder / "runs" / ".cache" / "votes").glob("*-pickscore-*.json")
    record = json.loads(kept.read_text())
    labels = pq.read_table(votes)["label_0"].to_pylist()
    assert record["label_0"] == labels
    right = [
        (one > two) == (label == 1) for label, (one, two) in zip(labels, record["scores"], strict=True) if label != 0.5
    ]
    assert by_metric["pickscore"]["decided"]["mean"] == pytest.approx(sum(right) / (48 - TIED))
    # hpsv2 counts ties of people as agreement: 5 of 48 are always right
    hpsv2 = by_metric["hpsv2"]
    assert hpsv2["own"]["mean"] == pytest.approx((hpsv2["decided"]["mean"] * (48 - TIED) + TIED) / 48)

    again = report(command, "--judges-on", "votes.parquet", "--format", "markdown")
    assert again.returncode == 0, again.stderr
    assert "of votes.parquet" not in again.stderr  # nothing is scored again
    assert "Agreement of metrics with people's votes" in again.stdout
    by_python = bench.report(command.folder / "runs", judges_on=bench.Votes(str(votes))).report.agreements
    assert {each.metric: each.own.mean for each in by_python} == {
        name: each["own"]["mean"] for name, each in by_metric.items()
    }
    kept.write_text(kept.read_text().replace("0.5", "1.0", 1))
    broken = report(command, "--judges-on", "votes.parquet")
    assert broken.returncode == 2
    assert f"{kept.name} is damaged" in broken.stderr


def test_what_is_no_vote_is_refused(command: CommandLine, votes: Path) -> None:
    table = pq.read_table(votes)
    pq.write_table(table.drop_columns(["label_0"]), command.folder / "unlabelled.parquet")
    write_data(command.folder / "judged.parquet", [table], [{"command": "data score", "judges": ["pickscore"]}])
    for words, said in (
        (
            ("--judges-on", "unlabelled.parquet"),
            "unlabelled.parquet has no votes: --judges-on needs pairs with label_0",
        ),
        (("--judges-on", "judged.parquet"), "the labels of judged.parquet were set by pickscore, not by people"),
        (
            ("--judges-on", "votes.parquet", "--checkpoint", "clip=x"),
            "clip=... is for a metric that is not in this table",
        ),
        (("--columns", "caption=text"), "add --judges-on, or leave them out"),
    ):
        refused = report(command, *words)
        assert refused.returncode == 2, refused.stdout
        assert said in refused.stderr


def test_another_version_of_a_metric_is_not_passed_off_as_the_one_in_the_table(
    command: CommandLine, votes: Path
) -> None:
    other = command.folder / "other"
    shutil.copytree(ASSETS / "scorers" / "pickscore", other)
    weights = load_file(other / "model.safetensors")
    save_file({**weights, "logit_scale": np.array(weights["logit_scale"] + 1)}, other / "model.safetensors")
    refused = report(command, "--judges-on", votes.name, "--checkpoint", f"pickscore={other}")
    assert refused.returncode == 2
    assert "the scores of pickscore in this table are by another version of it, which differs in" in refused.stderr
    assert "bench rescore --metrics pickscore; or, if the bench.json of the model names a checkpoint" in refused.stderr
