"""From run folders to the one value that every format shows."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from lab import PROMPTS, Lab
from PIL import Image

from bench.core.errors import UserError
from bench.core.files import keep_lines
from bench.records.protocol import prompts_digest
from bench.records.runs import RunFolder
from reports.content import Report
from reports.flat import flat_rows
from reports.footnotes import footnotes
from reports.page import page
from reports.pictures import compare, open_picture
from reports.plots import training_plot, win_rate_plot
from reports.render import as_csv
from reports.report import make_report
from reports.result_tables import report_tables, settings_lines
from reports.text_table import DASH, Verdict

HALVES = np.repeat([[0.25, 0.25], [0.75, 0.75]], len(PROMPTS) // 2, axis=0)
"""Scores (prompts, images): 0.25 for the first six prompts, 0.75 for the others."""


def known_report(lab: Lab) -> Report:
    """A base of HALVES and two seeds that add 0.5 to the first six prompts and 0 to the others."""
    lab.identities = {"gold": {"version": 1}, "pickscore": {"version": 1}, "distance": {"version": 1}}
    better = HALVES + 0.5 * (HALVES < 0.5)
    base = lab.base()
    shutil.rmtree(base.evaluation(lab.protocol.signature).folder)
    lab.judge(base, shift=0, scores=dict.fromkeys(lab.identities, HALVES))
    for seed in (0, 1):
        lab.judge(lab.train(seed=seed), shift=0, scores=dict.fromkeys(lab.identities, better))
    return make_report(lab.runs)


def test_means_differences_and_win_rates_by_hand(lab: Lab) -> None:
    scores = known_report(lab).rows[1].scores
    # Base mean 0.5, run mean 0.75.  Differences over 12 prompts: six of 0.5, six of 0; both seeds alike, so no seeds' part.
    # Squared deviations 12 * 0.0625 = 0.75; variance 0.75 / 11; of the mean / 12; t(11, 97.5 %) = 2.200985.
    half = 2.200985160082949 * (0.75 / 11 / 12) ** 0.5
    gold = scores["gold"]
    assert gold.difference is not None
    assert gold.win_rate is not None
    assert gold.mean == pytest.approx(0.75, rel=1e-12)
    assert (gold.difference.mean, gold.difference.low) == pytest.approx((0.25, 0.25 - half), rel=1e-9)
    # Six wins and six ties: 3/4, which is 3/4 (1/4) / (0.75 / 11 / 12 / 4) = 33 independent prompts of the exact test.
    assert gold.win_rate.mean == 0.75
    assert 0.5 < gold.win_rate.low < 0.6
    assert 0.85 < gold.win_rate.high < 0.92


def test_display_factor_scales_scores_and_not_win_rates(lab: Lab) -> None:
    scores = known_report(lab).rows[1].scores
    gold, pickscore = scores["gold"], scores["pickscore"]
    assert pickscore.difference is not None
    assert gold.difference is not None
    assert pickscore.mean == pytest.approx(100 * gold.mean)
    assert pickscore.difference.high == pytest.approx(100 * gold.difference.high)
    assert pickscore.win_rate is not None
    assert gold.win_rate is not None
    assert (pickscore.win_rate.low, pickscore.win_rate.p_value) == (gold.win_rate.low, gold.win_rate.p_value)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.034, "0.034"), (0.7040, "0.70"), (5.25, "5.2"), (9.97, "10"), (12.4, "12"), (3141, "3,141")],
)
def test_cost_counts_backwards_and_shows_short_times(lab: Lab, seconds: float, shown: str) -> None:
    lab.base()
    lab.run("dpo", seconds=seconds)
    *_, _, cost = report_tables(make_report(lab.runs))
    (cells,) = [cells for _, cells in cost.rows]
    assert dict(zip(cost.columns, (cell.value for cell in cells), strict=True)) == {
        "pairs": "960",
        "policy forwards": "1,920",
        "policy backwards": "960",
        "reference forwards": "1,920",
        "device seconds": shown,
        "peak memory": "1.00 GB",
    }


def test_cost_shows_the_fastest_and_the_slowest_seed(full_lab: Lab) -> None:
    *_, _, cost = report_tables(make_report(full_lab.runs))
    seconds = {label: cells[cost.columns.index("device seconds")] for label, cells in cost.rows}
    assert (seconds["Diffusion-DPO"].value, seconds["Diffusion-DPO"].detail) == ("11", "(10 to 12)")
    assert (seconds["SmPO"].value, seconds["SmPO"].detail) == ("10", "")


def shown_scores(lab: Lab, base: float, rows: dict[str, tuple[float, float]]) -> dict[str, tuple[str, str]]:
    """Values and details of a column: a base that scores the same everywhere, and rows with differences from low to high."""
    lab.identities = {"gold": {"version": 1}}
    lab.judge(lab.base_alone(), shift=0, scores={"gold": np.full((len(PROMPTS), 2), base)})
    for name, (low, high) in rows.items():
        scores = np.repeat(base + np.linspace(low, high, len(PROMPTS))[:, None], 2, axis=1)
        lab.judge(lab.train(name, title=name), shift=0, scores={"gold": scores})
    *_, table, _ = report_tables(make_report(lab.runs))
    return {label: (cells[0].value, cells[0].detail) for label, cells in table.rows}


def test_a_column_of_scores_has_one_number_of_decimals(lab: Lab) -> None:
    # t(11, 97.5 %) = 2.201 standard errors: 8.330 of 40 / 11 * sqrt(143 / 11 / 12), and as much of every other range.
    # The median, 0.833, has its second digit at the second decimal, so all have two.
    assert shown_scores(lab, 16.58, {"fine": (0, 0.004), "rough": (0, 40), "usual": (0, 4)}) == {
        "base": ("16.58", ""),
        "fine": ("16.58", "+0.00 ± 0.00"),
        "rough": ("36.58", "+20.00 ± 8.33"),
        "usual": ("18.58", "+2.00 ± 0.83"),
    }


def test_of_two_intervals_the_finer_sets_the_decimals(lab: Lab) -> None:
    assert shown_scores(lab, 0.0, {"fine": (0, 0.04), "rough": (0, 4)}) == {
        "base": ("0.0000", ""),
        "fine": ("0.0200", "+0.0200 ± 0.0083"),
        "rough": ("2.0000", "+2.0000 ± 0.8330"),
    }


def test_a_zero_has_no_minus(lab: Lab) -> None:
    shown = shown_scores(lab, 0.0, {"a": (-4.001, 4), "b": (-3, 3.1)})
    assert shown["a"] == ("0.0", "+0.0 ± 1.7")


def test_lower_is_better(lab: Lab) -> None:
    report = known_report(lab)
    distance = report.rows[1].scores["distance"]
    assert distance.win_rate is not None
    assert distance.win_rate.mean == pytest.approx(0.25)
    *_, scores, _ = report_tables(report)
    verdicts = dict(zip(scores.columns, (cell.verdict for cell in scores.rows[1][1]), strict=True))
    assert verdicts == {"PickScore (tiny)": Verdict.BETTER, "Distance_% ↓": Verdict.WORSE, "Gold": Verdict.BETTER}


def test_columns_are_in_one_order_and_gold_is_first(full_lab: Lab) -> None:
    report = make_report(full_lab.runs)
    *_, wins, scores, _ = report_tables(report)
    order = ("Gold", "PickScore (tiny)", "Distance_% ↓")
    assert wins.columns == ("seeds", *order)
    assert scores.columns == order
    assert [line["metric"] for line in flat_rows(report)[:3]] == ["gold", "pickscore", "distance"]


def test_rows_aggregate_seeds_and_cost(full_lab: Lab) -> None:
    report = make_report(full_lab.runs)
    assert [(row.label, row.seeds) for row in report.rows] == [
        ("base", ()),
        ("Diffusion-DPO", (0, 1, 2)),
        ("SFT", (0, 1)),
        ("SmPO", (0,)),
    ]
    cost = report.rows[1].cost
    assert cost is not None
    assert (cost.pairs, cost.policy_forwards, cost.reference_forwards) == (960, 1920, 1920)
    assert cost.policy_backwards == 960
    assert (cost.seconds, cost.peak_memory_bytes) == (11.0, 10**9 + 2)  # mean of 10 11 12, and the largest
    assert report.rows[0].cost is None


def test_the_cost_of_training_on_samples_is_in_samples_and_reward_calls_too(full_lab: Lab) -> None:
    *_, cost = report_tables(make_report(full_lab.runs))
    assert "samples" not in cost.columns
    full_lab.run("ddpo", title="DDPO", samples=480)
    report = make_report(full_lab.runs)
    *_, cost = report_tables(report)
    shown = {label: dict(zip(cost.columns, [cell.value for cell in cells], strict=True)) for label, cells in cost.rows}
    assert (shown["DDPO"]["samples"], shown["DDPO"]["reward calls"]) == ("480", "960")
    assert (shown["SFT"]["samples"], shown["SFT"]["reward calls"]) == ("0", "0")
    assert [(row.cost.samples, row.cost.flops) for row in report.rows if row.cost and row.algorithm == "ddpo"] == [
        (480, 1e12)
    ]


def test_ledgers_of_older_versions_have_no_operations_and_no_samples(lab: Lab) -> None:
    lab.base()
    run = lab.run("dpo")
    ledger = run.folder / "ledger.json"
    kept = {
        name: value
        for name, value in json.loads(ledger.read_text()).items()
        if name not in ("flops", "samples", "reward_calls")
    }
    ledger.write_text(json.dumps(kept))
    run.finish()
    cost = make_report(lab.runs).rows[1].cost
    assert cost is not None
    assert (cost.flops, cost.samples, cost.reward_calls) == (None, 0, 0)


def test_a_named_run_has_a_row_of_its_own(lab: Lab) -> None:
    lab.base()
    lab.run("dpo")
    lab.run("dpo", name="strong", beta=5000.0)
    assert [row.label for row in make_report(lab.runs).rows] == ["base", "Diffusion-DPO", "Diffusion-DPO (strong)"]


def test_the_metric_trained_on_is_marked(full_lab: Lab) -> None:
    report = make_report(full_lab.runs)
    marked = [(row.label, name) for row in report.rows for name, score in row.scores.items() if score.trained_on]
    assert marked == [("SmPO", "pickscore")]
    *_, wins, scores, _ = report_tables(report)
    daggers = [
        (label, cell.value)
        for grid in (wins, scores)
        for label, cells in grid.rows
        for cell in cells
        if "†" in cell.value
    ]
    assert [label for label, _ in daggers] == ["SmPO", "SmPO"]
    assert any(line.startswith("† trained on this metric") for line in footnotes(report))


def test_no_dagger_footnote_without_a_dagger(lab: Lab) -> None:
    assert not any("†" in line for line in footnotes(known_report(lab)))


def test_few_seeds_are_said(full_lab: Lab) -> None:
    lines = footnotes(make_report(full_lab.runs))
    assert any(line.startswith("SmPO: over one training seed, so that") for line in lines)
    assert not any("Diffusion-DPO" in line for line in lines)


def test_the_settings_travel_with_the_table(full_lab: Lab) -> None:
    protocol, metrics, scorers = settings_lines(make_report(full_lab.runs))
    assert protocol.startswith(f"protocol {full_lab.protocol.signature}: tiny (weights abc), 12 prompts")
    assert "DDIMScheduler, 20 steps, guidance 3, 64x64, noise seed 0, fp32" in protocol
    assert f"Gold {full_lab.protocol.metric_signature('gold', {'version': 1})}" in metrics
    # echo -n '{"identity":{"version":1},"metric":"gold"}' | sha256sum
    assert "Gold 974c736658e4" in scorers


def test_few_prompts_are_said_to_make_intervals_too_narrow(full_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = footnotes(make_report(full_lab.runs))
    (few,) = [line for line in lines if line.startswith("With only 12 prompts,")]
    assert "may be too narrow" in few

    assert few.endswith("50 or more were simulated.")

    many = [f"prompt {number}" for number in range(50)]
    monkeypatch.setattr("lab.PROMPTS", many)
    full_lab.runs = full_lab.runs.with_name("many")
    full_lab.protocol = full_lab.protocol.model_copy(update={"prompts": prompts_digest(many), "prompt_count": 50})
    full_lab.base()
    full_lab.run("dpo")
    assert not any(line.startswith("With only") for line in footnotes(make_report(full_lab.runs)))


def test_a_negative_prompt_is_stated(lab: Lab) -> None:
    made = lab.protocol.generation.model_copy(update={"negative_prompt": "blurry"})
    lab.protocol = lab.protocol.model_copy(update={"generation": made})
    lab.base()
    assert make_report(lab.runs).settings.endswith("negative prompt 'blurry'")


def test_curves_average_seeds(full_lab: Lab) -> None:
    curve = make_report(full_lab.runs).rows[1].curves["margin"]
    # margin = 0.001 step + 0.01 seed after step 0, which is left out: 29 of 30 steps are 29 points.
    assert len(curve.pairs) == 29
    assert (curve.pairs[0], curve.pairs[-1]) == (64, 960)
    assert (curve.low[-1], curve.mean[-1], curve.high[-1]) == pytest.approx((0.029, 0.039, 0.049))


def test_long_logs_are_averaged_over_windows(lab: Lab) -> None:
    lab.base()
    lab.run(steps=120)
    curve = make_report(lab.runs).rows[1].curves["margin"]
    assert len(curve.pairs) == 60
    assert (curve.pairs[1], curve.mean[1]) == pytest.approx((32 * 5, 0.0035))  # steps 3 and 4, as step 0 is left out


def test_a_quantity_that_is_not_logged_has_no_curve(full_lab: Lab) -> None:
    assert sorted(make_report(full_lab.runs).rows[2].curves) == ["loser_gap", "loss", "winner_gap"]


def test_pictures_are_those_of_the_runs(full_lab: Lab) -> None:
    report = make_report(full_lab.runs)
    comparison = compare(report.source, report.places)
    compared = comparison.prompts[3]
    assert (compared.index, compared.prompt, len(comparison.prompts)) == (3, PROMPTS[3], 12)
    picture = compared.pictures[1]
    assert picture is not None
    evaluation = full_lab.runs / "tiny/dpo/default/seed-0/evaluations" / full_lab.protocol.signature
    with Image.open(evaluation / "images/00003-00.png") as stored:
        embedded, original = (np.asarray(image, dtype=int) for image in (open_picture(picture), stored))
        assert np.abs(embedded - original).max() <= 4  # of 255: embedded images are compressed with loss
    lines = [json.loads(line) for line in (evaluation / "scores.jsonl").read_text().splitlines()]
    mine = [
        line["score"] for line in lines if (line["metric"], line["prompt_index"], line["image_index"]) == ("gold", 3, 0)
    ]
    assert mine == [picture.score]


def test_rows_with_one_title_have_labels_images_and_scores_of_their_own(lab: Lab) -> None:
    lab.base(title="Same")
    lab.run("dpo", title="Same", shift=0.5)
    lab.run("dpo", title="Same", name="Same", shift=1.0)
    lab.run("ipo", title="Same", shift=-0.5)
    lab.run("sft", title="Same", name="other", shift=-1.0)
    report = make_report(lab.runs)
    assert [row.label for row in report.rows] == [
        "Same [base]", "Same [dpo/Same]", "Same [dpo/default]", "Same [ipo]", "Same (other)",
    ]  # fmt: skip
    for compared in compare(report.source, report.places).prompts:
        assert len({picture.uri for picture in compared.pictures if picture}) == 5
        assert len({picture.score for picture in compared.pictures if picture}) == 5


def test_large_images_are_reduced(lab: Lab) -> None:
    evaluation = lab.base().evaluation(lab.protocol.signature)
    Image.new("RGB", (1024, 512), "red").save(evaluation.image(0, 0))
    evaluation.finish()
    report = make_report(lab.runs)
    picture = compare(report.source, report.places).prompts[0].pictures[0]
    assert picture is not None
    assert open_picture(picture).size == (256, 128)


def test_runs_copied_without_their_images_still_make_a_table(full_lab: Lab, lab: Lab) -> None:
    for images in full_lab.runs.glob("**/images"):
        shutil.rmtree(images)
    report = make_report(lab.runs)
    compared = compare(report.source, report.places)
    assert {picture for prompt in compared.prompts for picture in prompt.pictures} == {None}


def test_a_damaged_image_stops_the_page_alone(full_lab: Lab) -> None:
    evaluation = full_lab.runs / "tiny/dpo/default/seed-0/evaluations" / full_lab.protocol.signature
    (evaluation / "images/00003-00.png").write_bytes(b"no image")
    report = make_report(full_lab.runs)
    assert as_csv(report).count("Diffusion-DPO") == 3
    with pytest.raises(UserError, match=r"00003-00.png is damaged"):
        page(report)


def test_plots_are_deterministic_and_take_the_page_colour(full_lab: Lab) -> None:
    report = make_report(full_lab.runs)
    for plot in (win_rate_plot, training_plot):
        assert plot(report) == plot(report)
        assert "currentColor" in plot(report)
        assert "http" not in plot(report)
    assert "implicit accuracy" in training_plot(report)


def test_runs_without_logs_have_no_training_plot(full_lab: Lab) -> None:
    for log in full_lab.runs.glob("**/train.jsonl"):
        keep_lines(log, [])
        RunFolder(log.parent).finish()
    assert not training_plot(make_report(full_lab.runs))


def test_rows_of_one_seed_have_no_marks_until_another_row_has_two(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", shift=3)
    alone = make_report(lab.runs)
    gold = alone.rows[1].scores["gold"].difference
    assert gold is not None
    assert (gold.low > 0, gold.p_value, gold.adjusted) == (True, None, None)
    assert any(line.startswith("Trained rows have no marks") for line in footnotes(alone))
    for seed in range(3):
        lab.run("sft", seed, title="SFT", shift=-2)
    gold = make_report(lab.runs).rows[1].scores["gold"].difference
    assert gold is not None
    assert gold.adjusted is not None
    assert gold.adjusted < 0.05


def test_over_placebo_is_paired_by_seed(lab: Lab) -> None:
    lab.base()
    for seed in range(3):
        lab.run("dpo", seed, shift=0.9)
        lab.run("dpo", seed, name="shuffled", shift=0.1, config={"placebo_of": "default", "placebo": "shuffled labels"})
    report = make_report(lab.runs)
    rows = {row.label: row for row in report.rows}
    over = rows["Diffusion-DPO"].over_placebo
    assert over is not None
    won = []
    for seed in range(3):
        records = {
            name: lab.runs / f"tiny/dpo/{name}/seed-{seed}/evaluations/{lab.protocol.signature}/scores.jsonl"
            for name in ("default", "shuffled")
        }
        gold = {
            name: {
                (line["prompt_index"], line["image_index"]): line["score"]
                for line in map(json.loads, path.read_text().splitlines())
                if line["metric"] == "gold"
            }
            for name, path in records.items()
        }
        won += [gold["default"][item] > gold["shuffled"][item] for item in gold["default"]]
    assert over.mean == pytest.approx(sum(won) / len(won))
    assert rows["Diffusion-DPO (placebo)"].over_placebo is None
    first = report_tables(report)[0]
    assert first.columns[:3] == ("seeds", "over base", "over placebo")
    assert any(line.startswith("Over placebo:") for line in first.notes)


def test_placebos_have_no_rank_and_take_none(lab: Lab) -> None:
    """A placebo is compared with its own row; ranks, groups and pairs are of methods, whatever the placebos score."""
    lab.base()
    for seed in range(3):
        lab.run("dpo", seed, shift=0.2)
        lab.run("sft", seed, title="SFT", shift=0.6)
    without = make_report(lab.runs)
    for seed in range(3):
        lab.run("dpo", seed, name="shuffled", shift=2, config={"placebo_of": "default", "placebo": "shuffled labels"})
    report = make_report(lab.runs)
    rows = {row.label: row for row in report.rows}
    assert rows["Diffusion-DPO (placebo)"].standing is None
    assert rows["Diffusion-DPO (placebo)"].over_reference is not None
    assert [rows[row.label].standing for row in without.rows] == [row.standing for row in without.rows]
    assert [pair.difference for pair in report.pairs] == [pair.difference for pair in without.pairs]
    first, second = report_tables(report)[:2]
    assert dict(first.rows)["Diffusion-DPO (placebo)"][-2:] == (DASH, DASH)
    assert any("the base and placebos have none" in line for line in first.notes)
    assert second.columns == ("Diffusion-DPO", "SFT")


def test_another_row_can_be_the_reference(full_lab: Lab) -> None:
    report = make_report(full_lab.runs, against="dpo", primary="pickscore")
    assert [row.label for row in report.rows] == ["Diffusion-DPO", "base", "SFT", "SmPO"]
    assert report.rows[0].over_reference is None
    sft = report.rows[2]
    assert sft.over_reference is not None
    assert sft.over_reference == sft.scores["pickscore"].win_rate
    assert sft.over_reference.mean < 0.2
    with pytest.raises(UserError, match="--against 'nosuch' is not in this table; choose one of base, dpo/default"):
        make_report(full_lab.runs, against="nosuch")
    with pytest.raises(
        UserError, match="--primary 'x' is not in this table; choose one of gold, pickscore, distance, judges"
    ):
        make_report(full_lab.runs, primary="x")


def test_a_row_is_not_compared_by_the_endpoint_that_it_was_trained_on(full_lab: Lab) -> None:
    report = make_report(full_lab.runs, primary="pickscore")
    smpo = report.rows[3]
    assert smpo.over_reference is None
    assert smpo.scores["pickscore"].trained_on
    assert smpo.scores["pickscore"].win_rate is not None  # shown and marked all the same
    primary = report_tables(report)[0]
    assert [label for label, _ in primary.rows] == ["Diffusion-DPO", "SFT"]
    assert "Not compared by it, because they were trained on it: SmPO." in primary.notes


def test_base_alone_is_a_report(lab: Lab) -> None:
    lab.base()
    *_, wins, scores, cost = report_tables(make_report(lab.runs))
    assert (wins.rows, cost.rows) == ((), ())
    assert [label for label, _ in scores.rows] == ["base"]


def test_decimals_follow_the_usual_interval(lab: Lab) -> None:
    """A row whose difference is the same everywhere up to rounding does not set the decimals of the others."""
    base = lab.base()
    lab.run("dpo")
    records = base.evaluation(lab.protocol.signature).score_records()
    shifted = lab.train("sft", title="SFT")
    table = np.zeros((len(PROMPTS), 2))
    for record in records:
        if record["metric"] == "gold":
            table[record["prompt_index"], record["image_index"]] = record["score"] + 0.1
    lab.judge(shifted, shift=0, scores=dict.fromkeys(lab.identities, table))
    lab.run("smpo", title="SmPO", shift=0.5)
    gold = [cells[-1].value for _, cells in report_tables(make_report(lab.runs))[-2].rows]
    assert all(len(value.partition(".")[2]) in (3, 4) for value in gold)


def test_the_base_is_a_row_where_another_one_is_the_reference(full_lab: Lab) -> None:
    report = make_report(full_lab.runs, against="dpo")
    base = report.rows[1]
    assert base.algorithm == "base"
    assert base.over_reference is not None
    assert base.over_reference == base.scores["gold"].win_rate
    assert base.over_reference.mean < 0.5  # the laboratory shifts the scores of dpo up
    assert base.standing is not None
    lines = footnotes(report)
    assert (
        "base: not trained here, so that intervals are over prompts and the training seeds of Diffusion-DPO." in lines
    )


def test_rows_without_a_common_seed_are_not_compared(lab: Lab) -> None:
    lab.base()
    for seed in (0, 1):
        lab.run("dpo", seed)
        lab.run("sft", seed + 1, title="SFT")
    lab.run("ipo", 0, title="IPO")
    report = make_report(lab.runs, against="sft")
    rows = {row.label: row for row in report.rows}
    assert rows["IPO"].over_reference is None
    assert rows["IPO"].scores["gold"].difference is None
    assert rows["Diffusion-DPO"].over_reference is not None
    assert "No training seed in common with SFT, so not compared: IPO." in footnotes(report)


def test_intervals_that_simulations_found_too_wide_or_too_narrow_are_named(lab: Lab) -> None:
    """Seeds of dpo win all or nothing, so how seeds differ decides what one seed of sft says."""
    lab.identities = {"gold": {"version": 1}}
    shape = (len(PROMPTS), 2)
    lab.judge(lab.base_alone(), shift=0, scores={"gold": np.zeros(shape)})
    for seed in range(4):
        lab.judge(lab.train("dpo", seed), shift=0, scores={"gold": np.full(shape, 1.0 - 2 * (seed % 2))})
    halves = np.repeat([[1.0, 1.0], [-1.0, -1.0]], len(PROMPTS) // 2, axis=0)
    lab.judge(lab.train("sft", 0, title="SFT"), shift=0, scores={"gold": halves})
    lab.judge(lab.train("ipo", 0, title="IPO"), shift=0, scores={"gold": np.ones(shape)})
    report = make_report(lab.runs)
    misses = {row.label: row.over_reference and row.over_reference.miss for row in report.rows}
    assert misses == {"base": None, "Diffusion-DPO": None, "SFT": "too wide", "IPO": "too narrow"}
    lines = footnotes(report)
    assert any(line.startswith("Conservative: ") and line.endswith("(SFT).") for line in lines)
    assert any(line.startswith("Too narrow: ") and line.endswith("(IPO).") for line in lines)
