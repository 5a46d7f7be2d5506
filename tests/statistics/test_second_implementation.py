"""Reports against the second implementation in ``second.py``: intervals, p values, adjusted p values, pairs and ranks to 1e-6."""

from __future__ import annotations

import json
import lzma
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
from tests.reports.lab import INFOS, PROMPTS, Lab, variant

ROOT = Path(__file__).parents[2]

WITHIN = 1e-6
METRICS = ("--metrics", "pickscore,hpsv2,imagereward,aesthetic,gold")


def assert_same(runs: Path, against: str | None, place: int, primary: str = "gold") -> int:
    """Compare everything that a report says with the second implementation; the number of comparisons.

    Args:
        runs: run folders with the metric gold.
        against: the reference row; None is the base.
        place: its place in the second implementation.
        primary: the primary endpoint.
    """
    report = json.loads(as_json(make_report(runs, against=against, primary=primary)))
    expected = verdict(runs, place, primary)
    here = {_key(row): number for number, row in enumerate(report["rows"])}
    rows: list[Row] = expected["rows"]
    number = {mine: here[row.algorithm, row.name, row.varied] for mine, row in enumerate(rows)}
    compared = 0
    for kind in ("difference", "win_rate"):
        for metric, column in expected[kind].items():
            for mine, estimate in column.items():
                found = report["rows"][number[mine]]["scores"][metric][kind]
                first = kind == "win_rate" and metric == primary and mine in expected["over"]
                marks = expected["first"].get(mine) if first else expected["rest"].get((kind, metric, mine))
                compared += _assert_interval(found, estimate, marks)
    shown = {mine for mine, place in number.items() if report["rows"][place]["over_reference"] is not None}
    assert shown == set(expected["over"])
    for mine, estimate in expected["over"].items():
        found = report["rows"][number[mine]]["over_reference"]
        compared += _assert_interval(found, estimate, expected["first"].get(mine))
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
        signs = {"mean": "mean", "low": "high", "high": "low"}
        turn = {name: -estimate[of] for name, of in signs.items() if of in estimate} if turned else {}
        compared += _assert_interval(found, {**estimate, **turn}, expected["pair_marks"].get((one, other)))
    return compared


def _key(row: Mapping[str, Any]) -> tuple[str, str, float | None]:
    return row["algorithm"], row["name"], row["variants"][0]["guidance_scale"] if row["variants"] else None


def _assert_interval(found: Mapping[str, Any], estimate: Mapping[str, float], adjusted: float | None) -> int:
    for name in ("mean", "low", "high"):
        if name in estimate:
            assert found[name] == pytest.approx(estimate[name], abs=WITHIN, rel=WITHIN), name
        else:
            assert found[name] is None, name
    if "p_value" not in estimate:
        assert found["p_value"] is None
        assert found["adjusted"] is None
        return 3
    assert found["p_value"] == pytest.approx(estimate["p_value"], abs=WITHIN)
    assert found["adjusted"] == pytest.approx(adjusted, abs=WITHIN)
    return 5


def filled(lab: Lab) -> Lab:
    """Rows of one, two and three seeds, a placebo, a row that always wins and one that always ties, rows of seeds that no other has, and rows
    that were not trained here, among them one that equals the base and two that always win."""
    base = lab.base()
    for seed in range(3):
        lab.run("dpo", seed, shift=0.1 + 0.1 * seed)
        lab.run("sft", seed, title="SFT", shift=-0.3 + 0.2 * seed)
        twin = {"labels": "shuffled"}
        lab.run("dpo", seed, name="default-placebo", shift=0.05, config={"placebo_of": "default"}, training=twin)
    for seed in (1, 2):
        lab.run("kto", seed, title="KTO", shift=0.2)
    lab.run("ipo", 0, title="IPO", shift=5.0, trained_on=["pickscore"])  # wins everywhere
    for seed in range(2):
        lab.run("smpo", seed, title="SmPO", shift=0.6 * seed, trained_on=["pickscore"])
    equal = np.full((len(PROMPTS), 2), 0.5)
    lab.judge(lab.train("npo", 0, title="NPO"), shift=0, scores=dict.fromkeys(lab.identities, equal))
    for seed in (7, 8):
        lab.run("cpo", seed, title="CPO", shift=0.15)
    for scale, shift in ((5, 0.2), (6, 0.4), (7, 0), (9, 20), (10, 20)):
        guided = variant(base, guidance_scale=scale)
        lab.judge(base, shift=shift, place=base.evaluation_of(lab.protocol.signature, guided), variant=guided)
    return lab


@pytest.mark.parametrize(
    ("against", "place", "primary"),
    [
        (None, 0, "gold"),
        ("kto", None, "gold"),
        (None, 0, "judges"),
        (None, 0, "pickscore"),
        ("kto", None, "pickscore"),
    ],
)
def test_synthetic_scores(tmp_path: Path, against: str | None, place: int | None, primary: str) -> None:
    lab = filled(Lab(tmp_path / "runs"))
    if place is None:
        place = next(number for number, row in enumerate(verdict(lab.runs, 0)["rows"]) if row.algorithm == against)
    assert assert_same(lab.runs, against, place, primary) > 150


def test_judges_that_rank_the_rows_alike(tmp_path: Path) -> None:
    """Nine rows that three judges rank alike, and that a fourth ranks in another order."""
    lab = Lab(tmp_path / "runs", infos={**INFOS, "hpsv2": INFOS["pickscore"], "clip": INFOS["pickscore"]})
    lab.identities = {name: {"version": 1} for name in lab.infos}
    lab.judge(lab.base_alone(), shift=0, scores=dict.fromkeys(lab.infos, np.zeros((len(PROMPTS), 2))))
    for number in range(9):
        for seed in (0, 1):
            random = np.random.default_rng(10 * number + seed)
            scores = {name: random.normal(number / 4, size=(len(PROMPTS), 2)) for name in lab.infos}
            scores["distance"] = -scores["pickscore"]
            scores["hpsv2"] = scores["pickscore"] + 0.01
            lab.judge(lab.train(f"a{number}", seed, title=f"A{number}"), shift=0, scores=scores)
    assert assert_same(lab.runs, None, 0, "judges") > 150
    endpoint = make_report(lab.runs, primary="judges").endpoint
    assert endpoint is not None
    assert max(map(len, endpoint.witnesses)) > 1


def test_no_row_has_two_seeds(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "runs")
    lab.base()
    for algorithm in ("dpo", "sft", "ipo"):
        lab.run(algorithm, shift=0.2, title=algorithm)
    assert assert_same(lab.runs, None, 0) > 50


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of the README's tables."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.tar").write_bytes(lzma.decompress((ROOT / "docs" / "readme-study.tar.xz").read_bytes()))
    done = forked.run(("verify", "study.tar", "--output", "study"), folder, offline())
    assert done.returncode == 0, done.stderr
    return folder / "study" / "runs"


@pytest.mark.parametrize(("against", "primary"), [(None, "gold"), ("dpo", "gold"), (None, "pickscore")])
def test_the_study_of_the_readme(study: Path, against: str | None, primary: str) -> None:
    rows = verdict(study, 0)["rows"]
    place = next(number for number, row in enumerate(rows) if row.algorithm == (against or "base"))
    assert assert_same(study, against, place, primary) > 400


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
