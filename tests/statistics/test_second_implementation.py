"""Reports against the second implementation in ``second.py``: intervals, p values, adjusted p values, pairs and ranks to 1e-6."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from second import Row, verdict

from reports.render import as_json
from reports.report import make_report
from tests.cli.conftest import MANY_PROMPTS, CommandLine, offline, write_small_data
from tests.reports.lab import PROMPTS, Lab, variant

WITHIN = 1e-6
METRICS = ("--metrics", "pickscore,hpsv2,imagereward,aesthetic,gold")


def assert_same(runs: Path, against: str | None, place: int) -> int:
    """Compare everything that a report says with the second implementation; the number of comparisons.

    Args:
        runs: run folders with the metric gold.
        against: the reference row; None is the base.
        place: its place in the second implementation.
    """
    report = json.loads(as_json(make_report(runs, against=against)))
    expected = verdict(runs, place)
    here = {_key(row): number for number, row in enumerate(report["rows"])}
    rows: list[Row] = expected["rows"]
    number = {mine: here[row.algorithm, row.name, row.varied] for mine, row in enumerate(rows)}
    compared = 0
    for kind in ("difference", "win_rate"):
        for metric, column in expected[kind].items():
            for mine, estimate in column.items():
                found = report["rows"][number[mine]]["scores"][metric][kind]
                first = kind == "win_rate" and metric == "gold"
                marks = expected["first"].get(mine) if first else expected["rest"].get((kind, metric, mine))
                compared += _assert_interval(found, estimate, marks)
    for mine, estimate in expected["placebo"].items():
        found = report["rows"][number[mine]]["over_placebo"]
        compared += _assert_interval(found, estimate, expected["rest"].get(("placebo", mine)))
    for mine, (rank, best, worst) in expected["ranks"].items():
        standing = report["rows"][number[mine]]["standing"]
        assert (standing["rank"], standing["best"], standing["worst"]) == (rank, best, worst)
    pairs = {(pair["one"], pair["other"]): pair["difference"] for pair in report["pairs"]}
    assert len(pairs) == len(expected["pairs"])
    for (one, other), estimate in expected["pairs"].items():
        here_one, here_other = number[one], number[other]
        turned = (here_one, here_other) not in pairs
        found = pairs[(here_other, here_one) if turned else (here_one, here_other)]
        turn = {"mean": -estimate["mean"], "low": -estimate["high"], "high": -estimate["low"]} if turned else {}
        compared += _assert_interval(found, {**estimate, **turn}, expected["pair_marks"].get((one, other)))
    return compared


def _key(row: Mapping[str, Any]) -> tuple[str, str, bool]:
    return row["algorithm"], row["name"], bool(row["variants"])


def _assert_interval(found: Mapping[str, Any], estimate: Mapping[str, float], adjusted: float | None) -> int:
    for name in ("mean", "low", "high"):
        assert found[name] == pytest.approx(estimate[name], abs=WITHIN, rel=WITHIN), name
    if "p_value" not in estimate:
        assert found["p_value"] is None
        assert found["adjusted"] is None
        return 3
    assert found["p_value"] == pytest.approx(estimate["p_value"], abs=WITHIN)
    assert found["adjusted"] == pytest.approx(adjusted, abs=WITHIN)
    return 5


def filled(lab: Lab) -> Lab:
    """Rows with one, two and three seeds, a placebo, a row that always wins, one that always ties, and one that was not trained here."""
    base = lab.base()
    for seed in range(3):
        lab.run("dpo", seed, shift=0.1 + 0.1 * seed)
        lab.run("sft", seed, title="SFT", shift=-0.3 + 0.2 * seed)
        twin = {"labels": "shuffled"}
        lab.run("dpo", seed, name="default-placebo", shift=0.05, config={"placebo_of": "default"}, training=twin)
    for seed in (1, 2):
        lab.run("kto", seed, title="KTO", shift=0.2)
    lab.run("ipo", 0, title="IPO", shift=5.0)  # wins everywhere
    equal = np.full((len(PROMPTS), 2), 0.5)
    lab.judge(lab.train("npo", 0, title="NPO"), shift=0, scores=dict.fromkeys(lab.identities, equal))
    guided = variant(base, guidance_scale=5)
    lab.judge(base, shift=0.2, place=base.evaluation_of(lab.protocol.signature, guided), variant=guided)
    return lab


@pytest.mark.parametrize(("against", "place"), [(None, 0), ("kto", None)])
def test_synthetic_scores(tmp_path: Path, against: str | None, place: int | None) -> None:
    lab = filled(Lab(tmp_path / "runs"))
    if place is None:
        place = next(number for number, row in enumerate(verdict(lab.runs, 0)["rows"]) if row.algorithm == against)
    assert assert_same(lab.runs, against, place) > 150


def test_no_row_has_two_seeds(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "runs")
    lab.base()
    for algorithm in ("dpo", "sft", "ipo"):
        lab.run(algorithm, shift=0.2, title=algorithm)
    assert assert_same(lab.runs, None, 0) > 50


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of `bench run` on the tiny world: one seed each; three seeds with placebos; one, two and three seeds and other guidance."""
    folder = tmp_path_factory.mktemp("real")
    command = CommandLine(folder, *write_small_data(folder, MANY_PROMPTS))

    def bench(runs: str, algorithms: str, seeds: str, *words: str) -> None:
        train = command.train_words("--seeds", seeds, "--name", "real", *METRICS, *words, runs=runs, algo=algorithms)
        done = command.run(train)
        assert done.returncode == 0, done.stderr

    bench("one", "dpo,sft,ipo", "0")
    bench("three", "dpo,sft", "0,1,2", "--placebo")
    bench("mixed", "dpo", "0,1,2")
    bench("mixed", "kto", "0,1", "--placebo")
    bench("mixed", "sft", "1", "--placebo")
    guided = (
        "eval",
        "--model",
        "tiny",
        "--prompts",
        str(command.prompts),
        "--sampling-steps",
        "2",
        "--guidance-scale",
        "5",
        "--runs",
        "mixed",
    )
    done = forked.run(guided, command.folder, offline())
    assert done.returncode == 0, done.stderr
    return {name: command.folder / name for name in ("one", "three", "mixed")}


@pytest.mark.slow
def test_real_folders(real: dict[str, Path]) -> None:
    assert {name: assert_same(runs, None, 0) > 50 for name, runs in real.items()} == dict.fromkeys(real, True)
    for runs in (real["three"], real["mixed"]):
        place = next(
            number
            for number, row in enumerate(verdict(runs, 0)["rows"])
            if (row.algorithm, row.name) == ("dpo", "real")
        )
        assert assert_same(runs, "dpo/real", place) > 50
