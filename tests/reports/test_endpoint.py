"""Which metrics a report's main claims rest on, and what is refused."""

from __future__ import annotations

import os

import forked
import numpy as np
import pytest
from lab import INFOS, PROMPTS, Lab

from bench.core.errors import UserError
from reports.content import against
from reports.footnotes import footnotes
from reports.plots import win_rate_plot
from reports.report import make_report
from reports.result_tables import report_tables
from reports.text_table import Verdict


def judged_alike(lab: Lab, algorithm: str, title: str, trained_on: list[str]) -> None:
    """Three seeds that win on most prompts by PickScore and on few by the distance, the same for every algorithm."""
    high = np.repeat([[1.0, 1.0], [-1.0, -1.0]], [10, 2], axis=0)
    for seed in range(3):
        scores = {"pickscore": high + seed, "distance": high, "gold": high}
        run = lab.train(algorithm, seed, title=title, trained_on=trained_on)
        lab.judge(run, shift=0, scores={name: scores[name] for name in lab.identities})


def base_of_zeros(lab: Lab, *names: str) -> None:
    """A base that scores 0 by the metrics."""
    lab.identities = {name: {"version": 1} for name in names}
    lab.judge(lab.base_alone(), shift=0, scores=dict.fromkeys(names, np.zeros((len(PROMPTS), 2))))


def test_rows_that_score_the_same_are_the_same_whatever_they_were_trained_on(lab: Lab) -> None:
    base_of_zeros(lab, "pickscore", "distance")
    judged_alike(lab, "dpo", "Diffusion-DPO", [])
    judged_alike(lab, "smpo", "SmPO", ["pickscore"])
    report = make_report(lab.runs)
    _, dpo, smpo = report.rows
    assert dpo.over_reference is not None
    assert smpo.over_reference is not None
    assert dpo.over_reference.mean == smpo.over_reference.mean == pytest.approx(2 / 12)
    assert dpo.standing == smpo.standing
    (pair,) = report.pairs
    assert pair.difference.mean == 0
    first = report_tables(report)[0]
    assert first.title == "Primary endpoint, mean of the held-out judges: win rate, %"
    assert (
        "Held-out judges, the same for all rows: Distance_%.  Left out, since a row was trained on it: PickScore (tiny): SmPO."
        in first.notes
    )


def test_the_mean_of_the_judges_that_no_row_was_trained_on(lab: Lab) -> None:
    lab.infos = {**INFOS, "hpsv2": INFOS["pickscore"]}
    lab.identities = {name: {"version": 1} for name in lab.infos}
    lab.base()
    lab.run("dpo", shift=0.3)
    lab.run("smpo", title="SmPO", trained_on=["hpsv2"])
    dpo = make_report(lab.runs, primary="judges").rows[1]
    both = [dpo.scores[name].win_rate for name in ("pickscore", "distance")]
    assert dpo.over_reference is not None
    assert dpo.over_reference.mean == pytest.approx(sum(rate.mean for rate in both if rate is not None) / 2)


def test_two_metrics_of_one_title_are_told_apart(lab: Lab) -> None:
    lab.infos = {**INFOS, "other": INFOS["pickscore"]}
    lab.identities = {name: {"version": 1} for name in ("pickscore", "other", "distance")}
    lab.base()
    for algorithm in ("dpo", "sft"):
        lab.run(algorithm, title=algorithm)
    lab.run("smpo", title="SmPO", trained_on=["pickscore"])
    report = make_report(lab.runs)
    one, other = "PickScore (tiny) [pickscore]", "PickScore (tiny) [other]"
    assert [metric.info.title for metric in report.metrics] == [one, other, "Distance_%"]
    notes = report_tables(report)[0].notes
    held_out = f"Held-out judges, the same for all rows: {other}, Distance_%."
    assert f"{held_out}  Left out, since a row was trained on it: {one}: SmPO." in notes
    (alike,) = [table for table in report_tables(report) if table.title == "Do the metrics rank the rows alike?"]
    assert alike.columns == (one, other, "Distance_%")
    for place, (_, cells) in enumerate(alike.rows):
        assert [cell.value == "-" for cell in cells] == [place == column for column in range(3)]
    assert report.endpoint is not None
    assert len({(each.one, each.other) for each in report.endpoint.correlations}) == 3


def test_win_rates_that_differ_by_rounding_alone_share_a_rank(lab: Lab) -> None:
    """One half as wins of half of the prompts, and as two of three images of these and one of the others, whose mean is less by 2e-16."""
    lab.identities = {name: {"version": 1} for name in ("gold", "pickscore")}
    lab.protocol = lab.protocol.model_copy(
        update={"generation": lab.protocol.generation.model_copy(update={"images_per_prompt": 3})}
    )
    count = len(PROMPTS)
    halves = [
        np.repeat([[1.0] * 3, [-1.0] * 3], count // 2, axis=0),
        np.repeat([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]], count // 2, axis=0),
    ]
    better = np.ones((count, 3))
    lab.judge(lab.base_alone(), shift=0, scores=dict.fromkeys(lab.identities, np.zeros((count, 3))))
    for algorithm, gold, pickscore in (
        ("dpo", halves[0], better),
        ("sft", halves[1], -better),
        ("smpo", better, halves[0]),
        ("ipo", -better, halves[1]),
    ):
        run = lab.train(algorithm, title=algorithm)
        lab.judge(run, shift=0, scores={"gold": gold, "pickscore": pickscore})
    report = make_report(lab.runs)
    rates = [row.scores["gold"].win_rate for row in report.rows if row.label in ("dpo", "sft")]
    one, other = (rate.mean for rate in rates if rate is not None)
    assert 0 < abs(one - other) < 1e-12
    assert report.endpoint is not None
    (found,) = report.endpoint.correlations
    # ranks 2.5, 2.5, 4, 1 by gold and 4, 1, 2.5, 2.5 by PickScore
    assert found.value == pytest.approx(0)


def test_where_rows_were_trained_on_every_judge_there_is_no_endpoint(lab: Lab) -> None:
    base_of_zeros(lab, "pickscore", "distance")
    judged_alike(lab, "dpo", "Diffusion-DPO", ["distance"])
    judged_alike(lab, "smpo", "SmPO", ["pickscore"])
    report = make_report(lab.runs)
    assert report.endpoint is None
    assert [row.over_reference for row in report.rows] == [None] * 3
    (why,) = [line for line in footnotes(report) if line.startswith("No primary endpoint: ")]
    assert "PickScore (tiny): SmPO; Distance_%: Diffusion-DPO" in why
    assert "Bold is better, italic is worse (5 %), after Holm's adjustment over all cells." in footnotes(report)
    assert report_tables(report)[0].rows[0][1][1].verdict is Verdict.BETTER  # marked without an endpoint too
    with pytest.raises(UserError, match="--primary 'judges' rests on nothing, .*; choose one of pickscore, distance$"):
        make_report(lab.runs, primary="judges")
    chosen = make_report(lab.runs, primary="pickscore")
    assert [row.over_reference is None for row in chosen.rows] == [True, False, True]


def test_a_reference_that_was_trained_on_the_endpoint_is_refused(full_lab: Lab) -> None:
    with pytest.raises(UserError, match=r"SmPO was trained on PickScore \(tiny\), the primary endpoint"):
        make_report(full_lab.runs, primary="pickscore", against="smpo")
    # the page lets a reader choose it: win rates, and no endpoint
    chosen = against(make_report(full_lab.runs, primary="pickscore"), 3)
    assert [row.over_reference for row in chosen.rows] == [None] * 4
    assert chosen.pairs == ()
    why = "SmPO was trained on PickScore (tiny), the primary endpoint, so no row is compared with it by that endpoint."
    assert why in footnotes(chosen)
    report = make_report(full_lab.runs, against="smpo")
    wins = report_tables(report)[-3]
    assert wins.title == "Win rate against SmPO, %"
    assert wins.columns == ("seeds", "Gold", "PickScore (tiny)†", "Distance_% ↓")
    assert any(line.startswith("† at the head of a column: SmPO was trained") for line in footnotes(report))
    assert "PickScore (tiny) †" in win_rate_plot(report)
    assert not any(
        "at the head" in line for line in footnotes(make_report(full_lab.runs))
    )  # there SmPO is a row, and its cells have the mark


@pytest.mark.parametrize("command", [("report",), ("power", "--effect", "5")])
def test_judges_are_refused_and_not_offered_where_gold_alone_was_scored(lab: Lab, command: tuple[str, ...]) -> None:
    lab.identities = {"gold": {"version": 1}}
    lab.base()
    for seed in (0, 1):
        lab.run("dpo", seed)
        lab.run("sft", seed, title="SFT")
    for wanted, why in (
        ("judges", "rests on nothing, since no metric but gold was scored"),
        ("x", "is not in this table"),
    ):
        words = (*command, "--runs", str(lab.runs), "--primary", wanted)
        done = forked.run(words, lab.runs, os.environ)
        assert (done.returncode, done.stderr) == (2, f"error: --primary '{wanted}' {why}; choose one of gold\n")
