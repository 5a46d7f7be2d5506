"""A report says what every row was trained with, and on what."""

from __future__ import annotations

import io
import json
from typing import Any

import pandas as pd
import pytest
from lab import CODE, HARNESS, PROMPTS, Lab, variant
from rich.console import Console

from bench.core.files import read_json, write_json
from bench.core.values import digest
from bench.records.config import hash_of_given
from bench.records.runs import RunFolder
from reports.content import Report
from reports.footnotes import footnotes
from reports.latex import latex
from reports.page import page
from reports.render import as_csv, as_json, markdown, print_report
from reports.report import make_report
from reports.result_tables import settings_table


def terminal(report: Report) -> str:
    """What a terminal shows."""
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=1000))
    return stream.getvalue()


def data(source: str, pairs: int) -> dict[str, Any]:
    """What a configuration says of the reading of its data."""
    return {"data": {"source": source, "rows": pairs, "pairs": pairs, "ties_dropped": 0, "undecodable": []}}


def about_data(report: Report) -> list[str]:
    """The footnotes about training data."""
    return [line for line in footnotes(report) if "trained on" in line and "digest" in line]


def test_rows_that_trained_on_different_data_are_named_in_every_format(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", name="jsonl", digest="8523", pairs=12, config=data("own/pairs.jsonl", 12))
    lab.run("sft", title="SFT", digest="5539", config=data("/home/me/preferences.parquet", 2000))
    lab.run("smpo", title="SmPO", digest="5539", config=data("/home/me/preferences.parquet", 2000))
    report = make_report(lab.runs)
    sentence = (
        "Training data differ: Diffusion-DPO (jsonl) was trained on own/pairs.jsonl (12 pairs, digest 8523); "
        "the others on preferences.parquet (2,000 pairs, digest 5539); differences between such rows are not due to the algorithms alone."
    )
    assert about_data(report) == [sentence]
    for text in (terminal(report), latex(report), page(report), markdown(report).replace("\\_", "_")):
        assert sentence in text
        assert "/home/me" not in text


def test_the_same_images_with_other_labels_are_other_data(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", labels="people")
    lab.run("sft", title="SFT", labels="judge")
    assert about_data(make_report(lab.runs)) == [
        (
            "Training data differ: Diffusion-DPO was trained on votes.parquet (2,000 pairs, digest d, labels people); "
            "SFT on votes.parquet (2,000 pairs, digest d, labels judge); differences between such rows are not due to the algorithms alone."
        )
    ]


def test_a_run_in_rounds_was_not_trained_on_the_pairs_of_the_data(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", name="rounds", training={"rounds": {"number": 2, "judge": "clip"}})
    lab.run("sft", title="SFT", labels="judge")
    report = make_report(lab.runs)
    assert about_data(report) == [
        (
            "Training data differ: Diffusion-DPO (rounds) was trained on images that the run sampled, in 2 rounds, for captions of votes.parquet "
            "(digest d); SFT on votes.parquet (2,000 pairs, digest d); differences between such rows are not due to the algorithms alone."
        )
    ]


def test_runs_whose_rounds_fit_their_judge_read_the_labels(lab: Lab) -> None:
    lab.base()
    rounds = {"training": {"rounds": {"number": 2, "judge": "clip"}}, "samples": 96, "config": {"fits_judge": True}}
    lab.run("apo", title="APO", name="people", labels="people", **rounds)
    lab.run("apo", title="APO", name="judge", labels="judge", **rounds)
    assert about_data(make_report(lab.runs)) == [
        (
            "Training data differ: APO (judge) was trained on images that the run sampled, in 2 rounds, for captions of votes.parquet (2,000 pairs, "
            "digest d, labels judge), chosen by reward models fitted to its pairs; APO (people) on images that the run sampled, in 2 rounds, for "
            "captions of votes.parquet (2,000 pairs, digest d, labels people), chosen by reward models fitted to its pairs; "
            "differences between such rows are not due to the algorithms alone."
        )
    ]
    lab.run("dpo", labels="judge", **{**rounds, "config": {}})  # rounds that take captions alone
    (note,) = about_data(make_report(lab.runs))
    assert "images that the run sampled, in 2 rounds, for captions of votes.parquet (digest d);" in note


def test_a_run_that_sampled_was_not_trained_on_the_pairs_of_the_data(lab: Lab) -> None:
    lab.base()
    lab.run("ddpo", title="DDPO", samples=960)
    lab.run("sft", title="SFT")
    lab.run("dpo", labels="judge")
    report = make_report(lab.runs)
    assert about_data(report) == [
        (
            "Training data differ: DDPO was trained on images that the run sampled for captions of votes.parquet (digest d); Diffusion-DPO was "
            "trained on votes.parquet (2,000 pairs, digest d, labels judge); SFT on votes.parquet (2,000 pairs, digest d, labels l); "
            "differences between such rows are not due to the algorithms alone."
        )
    ]


def without_labels(run: RunFolder) -> None:
    """Make the records of a run as old as those without the digest of the labels."""
    config = read_json(run.folder / "config.json")
    del config["resolved"]["data"]["labels"]
    write_json(run.folder / "config.json", config)
    (run.folder / "DONE").write_text("")  # without digests, as those versions wrote it


def test_labels_that_were_not_recorded_are_no_other_labels(lab: Lab) -> None:
    lab.base()
    lab.run("dpo")
    without_labels(lab.run("smpo", title="SmPO"))
    assert about_data(make_report(lab.runs)) == ["Every run was trained on votes.parquet (2,000 pairs, digest d)."]
    lab.run("sft", title="SFT", labels="judge")
    (line,) = about_data(make_report(lab.runs))
    assert "SmPO on votes.parquet (2,000 pairs, digest d, labels not recorded)" in line


def test_data_that_all_rows_share_are_named_once(full_lab: Lab) -> None:
    assert about_data(make_report(full_lab.runs)) == ["Every run was trained on votes.parquet (2,000 pairs, digest d)."]


def test_a_base_alone_was_trained_on_nothing(lab: Lab) -> None:
    lab.base()
    report = make_report(lab.runs)
    assert not any("was trained on" in line or "were trained on" in line for line in footnotes(report))
    assert settings_table(report).columns == ()
    assert "Settings of each row" not in page(report)


def test_what_was_changed_of_a_recipe_is_spelt_out(lab: Lab) -> None:
    lab.base()
    changed = {"steps": "3", "budget.unit": "pairs", "beta": "5", "micro_batch_size": "4"}
    lab.run("dpo", name="set-525bd65a", config={"changed": changed})
    lab.run("orpo", name="set-525bd65a", title="ORPO", config={"changed": changed})
    lab.run("sft", name="recipe", title="SFT", config={"changed": {}})
    lab.run("smpo", name="set-0", title="SmPO", config={"changed": {"beta": "7"}})
    report = make_report(lab.runs)
    assert "SmPO (set-0): beta=7." in footnotes(report)
    # micro_batch_size says how a run is computed and is no part of what it resolved to
    labels = ("Diffusion-DPO (steps=3, budget.unit=pairs, beta=5)", "ORPO (steps=3, budget.unit=pairs, beta=5)")
    assert {row.label for row in report.rows} >= {*labels, "SFT (recipe)", "SmPO (set-0)"}
    # such a row needs no footnote
    assert not any(line.startswith(f"{label}: ") for line in footnotes(report) for label in (*labels, "SFT (recipe)"))


def test_more_changes_than_a_label_holds_are_a_footnote(lab: Lab) -> None:
    lab.base()
    changed = {"steps": "3", "beta": "5", "budget.unit": "pairs", "budget.amount": "96"}
    lab.run("dpo", name="set-525bd65a", config={"changed": changed})
    lab.run("dpo", name="set-0123abcd-89abcdef", config={"changed": {"beta": "5"}})
    report = make_report(lab.runs)
    long = "Diffusion-DPO (steps=3, beta=5, budget.unit=pairs, 1 more, set-525bd65a)"
    assert {row.label for row in report.rows} >= {long, "Diffusion-DPO (beta=5, 89abcdef)"}
    sentence = f"{long}: steps=3, beta=5, budget.unit=pairs, budget.amount=96."
    for text in (terminal(report), latex(report).replace("\\_", "_"), markdown(report).replace("\\_", "_")):
        assert sentence in text


def test_the_hash_of_data_weights_and_limit_that_a_command_gave_is_no_part_of_a_label(lab: Lab) -> None:
    lab.base()
    data, init = digest(["d", "l"]), lab.protocol.base_weights
    own = {"data": data}
    lab.run("dpo", name=f"recipe-{hash_of_given(own)}")
    lab.run(
        "ipo",
        name=f"set-525bd65a-{hash_of_given({**own, 'init': init})}",
        title="IPO",
        config={"changed": {"beta": "5"}},
    )
    limited = f"recipe-{hash_of_given({**own, 'limit': '4'})}"
    lab.run("sft", name=limited, title="SFT", config={"limit": 4})
    lab.run("sft", name=f"{limited}-placebo", title="SFT", config={"limit": 4, "placebo_of": limited})
    lab.run("orpo", name="recipe-0123abcd", title="ORPO")  # of other data: what a user has called it
    labels = [
        "base",
        "Diffusion-DPO (recipe)",
        "IPO (beta=5)",
        "ORPO (recipe-0123abcd)",
        "SFT (recipe)",
        "SFT (recipe, placebo)",
    ]
    report = make_report(lab.runs)
    assert [row.label for row in report.rows] == labels
    # rows that differ in nothing else have the whole name
    lab.run("sft", name="recipe", title="SFT")
    named = {row.label for row in make_report(lab.runs).rows}
    assert named >= {f"SFT (recipe) [sft/{limited}]", "SFT (recipe) [sft/recipe]"}


def test_rows_of_a_sweep_are_in_the_order_of_their_settings(lab: Lab) -> None:
    lab.base()
    for name, changed in {
        "set-00000001": {"beta": "1e3"},
        "set-00000002": {"beta": "500", "training.unknown": "1"},
        "set-00000003": {"beta": "500", "steps": "20"},
        "set-00000004": {"beta": "500", "steps": "3"},
        "set-00000005": {"steps": "7"},
    }.items():
        lab.run("dpo", name=name, config={"changed": changed})
    for name, objective in {"set-00000001": "sigmoid", "set-00000002": "hinge"}.items():
        lab.run("cpo", name=name, title="CPO", config={"changed": {"budget": objective}})
    lab.run("dpo", name="recipe", config={"changed": {}})
    assert [row.label for row in make_report(lab.runs).rows] == [
        "base",
        "CPO (budget=sigmoid)",
        "CPO (budget=hinge)",
        "Diffusion-DPO (recipe)",
        "Diffusion-DPO (steps=7)",
        "Diffusion-DPO (beta=500)",
        "Diffusion-DPO (beta=500, steps=3)",
        "Diffusion-DPO (beta=500, steps=20)",
        "Diffusion-DPO (beta=1e3)",
    ]


def test_weights_that_all_rows_started_from_are_told_once(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", config={"init": "mine"})
    lab.run("sft", title="SFT", config={"init": "mine"})
    assert [line for line in footnotes(make_report(lab.runs)) if "started from" in line] == [
        "Every run started from mine, not from the base model."
    ]
    lab.run("orpo", title="ORPO")
    assert [line for line in footnotes(make_report(lab.runs)) if "started from" in line] == [
        "Diffusion-DPO, SFT started from mine, not from the base model."
    ]


def test_a_recipe_of_another_model_is_explained(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", name="recipe")
    lab.run("sft", name=f"tiny-recipe-{hash_of_given({'data': digest(['d', 'l'])})}", title="SFT")
    lines = [line for line in footnotes(make_report(lab.runs)) if "recipe:" in line]
    assert [line.partition(", unchanged")[0] for line in lines] == [
        "recipe: the settings that bench has for an algorithm and this model",
        "tiny-recipe: the settings that bench has for an algorithm and tiny",
    ]


def test_records_older_than_the_list_of_changes_say_nothing_of_it(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", name="set-525bd65a")
    report = make_report(lab.runs)
    assert not any(line.startswith("Diffusion-DPO (set-525bd65a):") for line in footnotes(report))
    assert "changed" not in dict(settings_table(report).rows)


def test_rows_of_one_run_say_it_once(lab: Lab) -> None:
    lab.base()
    run = lab.run("dpo", name="set-1", config={"changed": {"beta": "5"}})
    guided = variant(run, guidance_scale=5)
    lab.judge(run, shift=0.4, place=run.evaluation_of(lab.protocol.signature, guided), variant=guided)
    report = make_report(lab.runs)
    assert len(report.rows) == 3
    assert [line for line in footnotes(report) if "beta=5" in line] == ["Diffusion-DPO (set-1): beta=5."]
    assert settings_table(report).columns == ("Diffusion-DPO (set-1)",)


@pytest.fixture
def told(lab: Lab) -> Report:
    """A report on two seeds of a run whose records say everything, and on a run whose records are older."""
    lab.base()
    more = {"changed": {"beta": "5"}, "recipe": "a paper, table 3", "init": "/home/me/sft/weights"}
    for seed in (0, 1):
        lab.run("dpo", seed, name="set-1", beta=5.0, config=more)
    lab.run("sft", title="SFT", steps=40, budget={"unit": "forwards", "amount": 20000})
    return make_report(lab.runs)


def test_the_page_has_all_settings_of_each_row(told: Report) -> None:
    grid = settings_table(told)
    assert grid.columns == ("Diffusion-DPO (set-1)", "SFT")
    shown = {field: tuple(cell.value for cell in cells) for field, cells in grid.rows}
    assert shown == {
        "data": ("votes.parquet", "votes.parquet"),
        "pairs": ("2000", "2000"),
        "digest of the data": ("d", "d"),
        "digest of the labels": ("l", "l"),
        "recipe": ("a paper, table 3", "-"),
        "changed": ("beta=5", "-"),
        "started from": ("weights", "base"),
        "training seeds": ("0, 1", "0"),
        "algorithm.beta": ("5.0", "1000.0"),
        "training.steps": ("30", "40"),
        "training.labels": ("as given", "as given"),
        "training.budget.unit": ("-", "forwards"),
        "training.budget.amount": ("-", "20000.0"),
    }
    text = page(told)
    assert "Settings of each row" in text
    assert "a paper, table 3" in text
    assert "/home/me" not in text


def test_json_and_csv_have_all_settings(told: Report) -> None:
    settings = json.loads(as_json(told))["rows"][1]["settings"]
    assert settings == {
        "changed": {"beta": "5"},
        "recipe": "a paper, table 3",
        "algorithm": {"beta": 5.0},
        "training": {"steps": 30, "budget": None, "rounds": None, "labels": "as given"},
        "data": {
            "source": "votes.parquet",
            "pairs": 2000,
            "digest": "d",
            "labels": "l",
            "rounds": None,
            "sampled": False,
            "fits_judge": False,
        },
        "prompts_in_training": None,
        "limit": None,
        "code": [CODE, CODE],
        "harness": [HARNESS, HARNESS],
    }
    table = pd.read_csv(io.StringIO(as_csv(told))).set_index(["label", "metric"])
    line = table.loc[("Diffusion-DPO (set-1)", "gold")]
    assert (line["changed"], line["recipe"], line["started_from"]) == ("beta=5", "a paper, table 3", "weights")
    assert (line["data_source"], line["data_pairs"], line["data_digest"]) == ("votes.parquet", 2000, "d")
    assert json.loads(line["algorithm_settings"]) == {"beta": 5.0}
    assert json.loads(line["training_settings"])["steps"] == 30
    assert table.loc[("base", "gold"), "data_source":"data_labels"].isna().all()


def seen(lab: Lab, run: RunFolder, count: int) -> None:
    """Record that some evaluation prompts were captions in training."""
    run.evaluation(lab.protocol.signature).note_prompts_in_training(count)


def test_prompts_that_were_captions_in_training_are_told(lab: Lab) -> None:
    lab.base()
    for seed in (0, 1):
        seen(lab, lab.run("dpo", seed, name="x"), 6)
    seen(lab, lab.run("sft", title="SFT"), 6)
    seen(lab, lab.run("smpo", title="SmPO"), 0)
    lab.run("npo", title="NPO")
    report = make_report(lab.runs)
    sentence = f"Diffusion-DPO (x), SFT were trained on 6 of these {len(PROMPTS)} prompts."
    assert [line for line in footnotes(report) if f"of these {len(PROMPTS)}" in line] == [sentence]
    for text in (terminal(report), latex(report), markdown(report), page(report)):
        assert sentence in text
    assert [row["settings"] and row["settings"]["prompts_in_training"] for row in json.loads(as_json(report))["rows"]] == [
        None, 6, None, 6, 0,
    ]  # fmt: skip


def test_a_budget_in_forwards_is_explained(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", budget={"unit": "pairs", "amount": 960})
    assert not any("budget" in line for line in footnotes(make_report(lab.runs)))
    lab.run("sft", title="SFT", budget={"unit": "forwards", "amount": 20000})
    lines = [line for line in footnotes(make_report(lab.runs)) if "budget" in line]
    assert lines == ["A budget in forwards counts a backward as two forwards (SFT)."]


def test_training_in_rounds_uses_more_of_the_harness_than_other_training(lab: Lab) -> None:
    lab.base()
    lab.run("sft", title="SFT")
    rounds = {"number": 2, "judge": "clip"}
    for name, harness in (("one", "more"), ("two", "more"), ("three", "other")):
        assert not any("versions of the harness" in note for note in footnotes(make_report(lab.runs)))
        lab.run("dpo", name=name, training={"rounds": rounds}, code={"algorithm": "a", "harness": harness})
    (note,) = [note for note in footnotes(make_report(lab.runs)) if "versions of the harness" in note]
    assert "Diffusion-DPO (one), Diffusion-DPO (two) by" in note
    assert "SFT" not in note


def test_rows_that_different_harnesses_trained_are_named(lab: Lab) -> None:
    lab.base()
    lab.run("sft", title="SFT")
    lab.run("dpo")
    assert not any("versions of the harness" in note for note in footnotes(make_report(lab.runs)))
    run = lab.run("smpo", title="SmPO", code={"algorithm": "a", "harness": "other"})
    other = run.config().resolved.harness_id
    (note,) = [note for note in footnotes(make_report(lab.runs)) if "versions of the harness" in note]
    assert (
        f"Diffusion-DPO, SFT by {HARNESS}; SmPO by {other}; differences between such rows are not due to the algorithms alone."
        in note
    )
