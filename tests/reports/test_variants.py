"""Rows whose images were made with other guidance than the protocol's."""

from __future__ import annotations

import io
import json
from typing import Any

import pandas as pd
import pytest
from lab import Lab, variant

from bench.core.errors import UserError
from bench.records.config import Resolved, RunConfig
from bench.records.runs import RunFolder
from reports.footnotes import footnotes
from reports.plots import training_plot, win_rate_plot
from reports.render import as_csv, as_json
from reports.report import make_report
from reports.result_tables import report_tables


def judge_variant(
    lab: Lab, run: RunFolder, negative: RunFolder | None = None, *, done: bool = True, **change: Any
) -> str:
    """Judge a run with other guidance; the variant's signature."""
    made = variant(run, negative, **change)
    place = run.evaluation_of(lab.protocol.signature, made)
    lab.judge(run, shift=0.4, place=place, variant=made, done=done)
    return made.signature


def judge_negative(lab: Lab, run: RunFolder, base: RunFolder) -> None:
    """The own result of a run that trained a negative."""
    lab.judge(run, shift=0.1, variant=variant(base, run))


def test_a_sweep_of_the_base_is_compared_with_the_base(lab: Lab) -> None:
    base = lab.base()
    lab.run("dpo")
    for scale in (10, 5, 1):
        judge_variant(lab, base, guidance_scale=scale)
    report = make_report(lab.runs)
    assert [row.label for row in report.rows] == [
        "base", "base, guidance 1", "base, guidance 5", "base, guidance 10", "Diffusion-DPO",
    ]  # fmt: skip
    for row in report.rows[1:4]:
        win = row.scores["gold"].win_rate
        assert win is not None
        assert win.mean > 0.9  # the laboratory shifts these scores by 0.4 of their spread
        assert (row.cost, row.seeds) == (None, ())
    *_, wins, _, cost = report_tables(report)
    assert [(label, cells[0].value) for label, cells in wins.rows][-2:] == [
        ("base, guidance 10", "-"),
        ("Diffusion-DPO", "1"),
    ]
    assert [label for label, _ in cost.rows] == ["Diffusion-DPO"]
    assert any(
        line.startswith("base, guidance 1, base, guidance 5,") and ": not trained here, so that" in line
        for line in footnotes(report)
    )
    assert "base, guidance 5" in win_rate_plot(report)
    assert "base, guidance 5" not in training_plot(report)


def test_seeds_with_negatives_seed_by_seed_are_one_row(lab: Lab) -> None:
    base = lab.base()
    for seed in (0, 1):
        negative = lab.train("npo", seed, title="NPO", trained_on=["pickscore"])
        judge_negative(lab, negative, base)
        judge_variant(lab, lab.run("dpo", seed), negative, beta=0.5)
    report = make_report(lab.runs)
    assert [(row.label, row.seeds) for row in report.rows] == [
        ("base", ()),
        ("Diffusion-DPO", (0, 1)),
        ("Diffusion-DPO + NPO (1, 0.5)", (0, 1)),
        ("NPO", (0, 1)),
    ]
    marked = [row.label for row in report.rows if row.scores["pickscore"].trained_on]
    assert marked == ["Diffusion-DPO + NPO (1, 0.5)", "NPO"]
    lines = footnotes(report)
    assert sum(line.startswith("A + B (alpha, beta):") for line in lines) == 1
    assert (
        "NPO trains weights for the unconditional branch of guidance, so its images are those of base + NPO (1, 1)."
        in lines
    )
    assert [row.cost is None for row in report.rows] == [True, False, True, False]
    assert [bool(row.curves) for row in report.rows] == [False, True, False, True]


def test_weights_for_the_unconditional_branch_are_compared_with_their_placebo(lab: Lab) -> None:
    base = lab.base()
    for seed in (0, 1):
        judge_negative(lab, lab.train("npo", seed, title="NPO", config={"placebo": "shuffled"}), base)
        twin = {"placebo_of": "default", "placebo": "shuffled"}
        judge_negative(lab, lab.train("npo", seed, name="p", title="NPO", config=twin), base)
    report = make_report(lab.runs)
    assert [row.over_placebo is not None for row in report.rows] == [False, True, False]
    assert not any("has a placebo" in line for line in footnotes(report))
    assert make_report(lab.runs, against="npo").rows[0].label == "NPO"


def test_a_run_sampled_in_another_way_is_not_said_to_lack_a_placebo(lab: Lab) -> None:
    lab.base()
    run = lab.run("dpo", config={"placebo": "shuffled"})
    judge_variant(lab, run, guidance_scale=5)
    lab.run("dpo", name="p", config={"placebo_of": "default", "placebo": "shuffled"})
    lines = report_tables(make_report(lab.runs))[0].notes
    assert not any(line.startswith("Their placebo is not in this table") for line in lines)


def test_several_negatives_of_one_run_are_several_rows(lab: Lab) -> None:
    base = lab.base()
    worse = [lab.run("sft", seed, title="SFT") for seed in (0, 1)]
    for negative in worse:
        judge_variant(lab, base, negative)
    assert [row.label for row in make_report(lab.runs).rows] == [
        "base", "base + SFT seed 0 (1, 1)", "base + SFT seed 1 (1, 1)", "SFT",
    ]  # fmt: skip


def test_released_weights_are_a_row_without_seed_and_cost(lab: Lab) -> None:
    lab.base()
    run = RunFolder(lab.runs / "tiny" / "weights" / "theirs")
    resolved = Resolved(weights="d")
    run.begin(RunConfig(model="tiny", algorithm="weights", title="theirs", name="theirs", resolved=resolved))
    run.finish()
    lab.judge(run, shift=0.3)
    row = make_report(lab.runs).rows[1]
    assert (row.label, row.seeds, row.cost) == ("theirs", (), None)
    assert row.scores["gold"].win_rate is not None


def test_signatures_of_variants_are_in_the_files(lab: Lab) -> None:
    base = lab.base()
    signature = judge_variant(lab, base, guidance_scale=5)
    report = make_report(lab.runs)
    table = pd.read_csv(io.StringIO(as_csv(report)), dtype=str).set_index(["label", "metric"])
    assert table.loc[("base, guidance 5", "gold"), "variants"] == signature
    assert pd.isna(table.loc[("base", "gold"), "variants"])
    assert set(table["protocol_signature"]) == {lab.protocol.signature}
    (recorded,) = json.loads(as_json(report))["rows"][1]["variants"]
    assert recorded["guidance_scale"] == 5


def test_an_unfinished_variant_is_listed_and_no_row(lab: Lab) -> None:
    lab.base()
    judge_variant(lab, lab.run("dpo"), guidance_scale=5, done=False)
    report = make_report(lab.runs)
    assert [row.label for row in report.rows] == ["base", "Diffusion-DPO"]
    assert report.notes == ("Not finished: dpo/default seed 0 (evaluation with other guidance).",)


def test_a_name_means_the_row_that_is_sampled_as_the_protocol_says(lab: Lab) -> None:
    base = lab.base()
    dpo = lab.run("dpo")
    lab.run("dpo", name="strong", beta=5000.0)
    for run in (base, dpo):
        judge_variant(lab, run, guidance_scale=5)

    def reference(wanted: str) -> str:
        return make_report(lab.runs, against=wanted).rows[0].label

    assert [reference(name) for name in ("base", "dpo", "dpo/default", "base, guidance 5", "dpo/strong")] == [
        "base", "Diffusion-DPO", "Diffusion-DPO", "base, guidance 5", "Diffusion-DPO (strong)",
    ]  # fmt: skip
    with pytest.raises(UserError) as refused:
        reference("nosuch")
    assert str(refused.value) == (
        "--against 'nosuch' is not in this table; choose one of base, 'base, guidance 5', dpo/default, "
        "'Diffusion-DPO, guidance 5', dpo/strong"
    )


@pytest.mark.parametrize("name", ["recipe", "default"])  # version 0.1 said default
def test_an_algorithm_with_several_rows_means_the_one_of_its_recipe(lab: Lab, name: str) -> None:
    lab.base()
    lab.run("dpo", name=name)
    lab.run("dpo", name="strong", beta=5000.0)
    assert make_report(lab.runs, against="dpo").rows[0].name == name


def test_a_name_of_several_rows_is_refused_with_names_that_mean_one(lab: Lab) -> None:
    lab.base()
    for name in ("mild", "strong"):
        lab.run("dpo", name=name)
    with pytest.raises(
        UserError, match="--against 'dpo' means several rows; choose one of base, dpo/mild, dpo/strong$"
    ):
        make_report(lab.runs, against="dpo")
