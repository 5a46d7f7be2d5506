"""A report says of every column what its intervals are over and what was tested, and claims no test that did not take place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from lab import PROMPTS, Lab, variant

from bench.core.files import write_json
from bench.records.evaluations import Evaluation
from reports.conclusion_tables import WIDEST
from reports.content import Report
from reports.footnotes import footnotes
from reports.render import as_json, markdown
from reports.report import make_report
from reports.result_tables import report_tables
from reports.text_table import DASH, TextTable


def train(lab: Lab, algorithm: str, seeds: Sequence[int], shift: float = 0.2, **options: Any) -> None:
    """Seeds of an algorithm that is called as it is registered."""
    for seed in seeds:
        lab.run(algorithm, seed, shift=shift, title=algorithm, **options)


def placebo(lab: Lab, algorithm: str, seeds: Sequence[int]) -> None:
    """Seeds of an algorithm's placebo."""
    train(lab, algorithm, seeds, 0.05, name="p", config={"placebo_of": "default", "placebo": "shuffled"})


def drop(evaluation: Evaluation, metric: str) -> None:
    """Take a metric's scores out of an evaluation, as if it had not been asked for."""
    lines = evaluation.scores.read_text().splitlines(keepends=True)
    evaluation.scores.write_text("".join(line for line in lines if json.loads(line)["metric"] != metric))
    described = evaluation.folder / "metrics.json"
    write_json(described, {name: each for name, each in json.loads(described.read_text()).items() if name != metric})
    (evaluation.folder / "DONE").write_text("")


def about_seeds(report: Report) -> list[str]:
    """The footnotes on training seeds."""
    words = (": over one training seed", "Trained rows have no marks", "Compared with", "Over placebo, on")
    return [line for line in footnotes(report) if line.startswith(words[1:]) or words[0] in line]


def intervals_are(report: Report) -> str:
    """What the footnotes say that intervals are over."""
    (line,) = [line for line in footnotes(report) if line.startswith("[ ]")]
    return line.partition("95 % intervals over ")[2].partition(",")[0]


WITHOUT = "no comparison is over two training seeds, so nothing is known about how seeds differ, and intervals do not include it."


def test_a_reference_of_one_seed_leaves_nothing_to_test(lab: Lab) -> None:
    lab.base()
    train(lab, "dpo", [0])
    train(lab, "sft", range(3))
    train(lab, "ipo", range(3))
    report = make_report(lab.runs, against="dpo")
    found = {row.label: row.over_reference for row in report.rows[1:]}
    assert [(each.seeds, each.p_value) for each in found.values() if each] == [(1, None)] * 3
    assert about_seeds(report) == [
        f"Trained rows have no marks: {WITHOUT}",
        "Compared with dpo on the training seeds that both have: ipo on 1 of its 3 (seed 0); sft on 1 of its 3 (seed 0).",
    ]
    assert intervals_are(report) == "prompts"
    assert "base: not trained here, so that intervals are over prompts only." in footnotes(report)


def test_a_reference_of_three_seeds_tests_a_row_of_one(lab: Lab) -> None:
    lab.base()
    train(lab, "dpo", range(3))
    train(lab, "sft", [0])
    report = make_report(lab.runs, against="dpo")
    found = [row.over_reference for row in report.rows[1:]]
    assert [(each.seeds, each.p_value is None) for each in found if each] == [(3, False), (1, False)]
    assert about_seeds(report) == [
        "sft: over one training seed, so that the interval takes from other rows how much seeds differ."
    ]
    assert intervals_are(report) == "prompts and training seeds"


def test_a_column_without_its_only_row_of_several_seeds_is_not_tested(lab: Lab) -> None:
    lab.base()
    train(lab, "dpo", range(3), trained_on=["pickscore"])
    train(lab, "sft", [0])
    report = make_report(lab.runs, primary="pickscore")
    sft = report.rows[2]
    assert sft.over_reference is not None
    assert sft.over_reference.p_value is None
    gold = sft.scores["gold"].win_rate
    assert gold is not None
    assert gold.p_value is not None
    assert about_seeds(report) == [
        f"Trained rows have no marks in over base: {WITHOUT}",
        "sft: over one training seed in Gold, PickScore (tiny), Distance_%, so that the interval takes from other rows how much seeds differ.",
    ]


def test_over_placebo_says_on_how_many_seeds_it_rests(lab: Lab) -> None:
    lab.base()
    train(lab, "dpo", range(3))
    placebo(lab, "dpo", [1])
    report = make_report(lab.runs)
    over = report.rows[1].over_placebo
    assert over is not None
    assert (over.seeds, over.p_value) == (1, None)
    assert about_seeds(report) == [
        f"Trained rows have no marks in over placebo: {WITHOUT}",
        "dpo (placebo): over one training seed, so that the interval takes from other rows how much seeds differ.",
        "Over placebo, on the training seeds that both have: dpo on 1 of its 3 (seed 1).",
    ]
    placebo(lab, "dpo", [2])
    assert about_seeds(make_report(lab.runs)) == [
        "Over placebo, on the training seeds that both have: dpo on 2 of its 3 (seeds 1, 2)."
    ]


def placebo_notes(lab: Lab) -> list[str]:
    """The notes of the first table about rows without a value over placebo."""
    notes = report_tables(make_report(lab.runs))[0].notes
    words = (
        "No row has a placebo",
        "No placebo in this table",
        "Without a placebo",
        "No training seed in common with the placebo",
    )
    return [line.partition(",")[0] if line.startswith("No row") else line for line in notes if line.startswith(words)]


def test_why_a_row_has_nothing_over_placebo(lab: Lab) -> None:
    lab.base()
    placebo(lab, "dpo", [1])
    assert placebo_notes(lab) == []  # a placebo needs none
    train(lab, "dpo", [0])
    apart = "No training seed in common with the placebo, so not compared with it: dpo."
    assert placebo_notes(lab) == [apart]
    train(lab, "ipo", [0])
    missing = "No placebo in this table, so the effect of the preferences is unknown: ipo."
    assert placebo_notes(lab) == [missing, apart]
    train(lab, "sft", [0], config={"placebo": ""})
    useless = "Without a placebo, because they read nothing that could be shuffled: sft."
    assert placebo_notes(lab) == [missing, useless, apart]
    placebo(lab, "ipo", [0])
    assert placebo_notes(lab) == [useless, apart]
    assert [cells[2] == DASH for _, cells in report_tables(make_report(lab.runs))[0].rows] == [
        True,
        True,
        False,
        True,
        True,
    ]


def test_an_algorithm_as_the_reference_is_the_method_and_not_its_placebo(lab: Lab) -> None:
    lab.base()
    train(lab, "dpo", [0])
    placebo(lab, "dpo", [0])
    report = make_report(lab.runs, against="dpo")
    assert report.rows[0].placebo_of is None
    assert "How much training seeds differ is estimated from all rows" in "\n".join(footnotes(report))
    assert make_report(lab.runs, against="dpo/p").rows[0].placebo_of == "default"


def test_no_row_has_a_placebo(lab: Lab) -> None:
    lab.base()
    train(lab, "dpo", [0])
    assert placebo_notes(lab) == ["No row has a placebo"]


def test_a_table_of_one_seed_has_ranks_alone(lab: Lab) -> None:
    lab.base()
    train(lab, "dpo", [0], 0.5)
    train(lab, "sft", [0], -0.5)
    report = make_report(lab.runs)
    first, second = report_tables(report)[:2]
    assert first.columns == ("seeds", "over base", "rank")
    assert [(cells[2].value, cells[2].detail) for _, cells in first.rows] == [("1", ""), ("2", "")]
    assert "Rank: by over base (1 is best); the base itself has none." in first.notes
    assert "No rank is tested, because no two rows have two training seeds in common." in first.notes
    assert not any("told apart" in line for line in first.notes)
    assert second.notes[0].endswith("Nothing is marked: no two rows have two training seeds in common.")
    standing = report.rows[1].standing
    assert standing is not None
    assert (standing.rank, standing.best, standing.worst, standing.groups) == (1, None, None, "")


def test_a_row_without_a_common_seed_has_a_rank_alone(lab: Lab) -> None:
    lab.base()
    train(lab, "dpo", range(2), 0.5)
    train(lab, "sft", range(2), -0.5)
    train(lab, "ipo", [7, 8])
    first = report_tables(make_report(lab.runs))[0]
    shown = {label: (cells[2].value, bool(cells[2].detail), cells[3] == DASH) for label, cells in first.rows}
    assert shown == {"dpo": ("1", True, False), "ipo": ("2", False, True), "sft": ("3", True, False)}
    assert "Ranked without a rank interval, because no comparison could be tested: ipo." in first.notes
    (rank,) = [line for line in first.notes if line.startswith("Rank:")]
    assert rank.startswith(
        "Rank: by over base (1 is best), on the training seeds that two rows have in common; in brackets"
    )


def test_ranks_lie_in_their_intervals_where_rows_have_other_seeds(lab: Lab) -> None:
    """Four seeds of dpo lose everything, and it alone has them; on the other three it wins more than sft."""
    base_of_zeros(lab)
    for seed in range(7):
        judge(lab, "dpo", seed, 12 if seed < 3 else 0)
    for seed in range(3):
        judge(lab, "sft", seed, 5 + seed % 2)
    report = make_report(lab.runs)
    dpo, sft = report.rows[1:]
    assert dpo.over_reference is not None
    assert sft.over_reference is not None
    assert dpo.over_reference.mean < sft.over_reference.mean
    assert [(row.standing.rank, row.standing.best, row.standing.worst) for row in (dpo, sft) if row.standing] == [
        (1, 1, 1), (2, 2, 2),
    ]  # fmt: skip


def base_of_zeros(lab: Lab) -> None:
    """A base that scores 0 by gold alone."""
    lab.identities = {"gold": {"version": 1}}
    lab.judge(lab.base_alone(), shift=0, scores={"gold": np.zeros((len(PROMPTS), 2))})


def judge(lab: Lab, algorithm: str, seed: int, wins: int) -> None:
    """A run that wins on the first prompts and loses on the others."""
    scores = np.repeat(np.where(np.arange(len(PROMPTS)) < wins, 1.0, -1.0)[:, None], 2, axis=1)
    lab.judge(lab.train(algorithm, seed, title=algorithm), shift=0, scores={"gold": scores})


def test_rows_that_always_win_are_shown_without_a_certain_difference(lab: Lab) -> None:
    base_of_zeros(lab)
    for seed in (0, 1):
        judge(lab, "dpo", seed, 12)
        judge(lab, "sft", seed, 12)
    report = make_report(lab.runs)
    (pair,) = report.pairs
    assert (pair.difference.mean, pair.difference.ends, pair.difference.adjusted) == (0, None, None)
    first, second = report_tables(report)[:2]
    assert [[cell.detail for cell in cells] for _, cells in second.rows] == [["", ""], ["", ""]]
    assert first.columns == ("seeds", "over base", "rank")
    assert (
        "No rank is tested, because what differs between two rows is the same for all prompts and seeds." in first.notes
    )
    (score,) = [cells[0] for label, cells in report_tables(report)[3].rows if label == "dpo"]
    assert (score.value, score.detail) == ("1.000", "+1.000")
    assert any(line.startswith("A win rate or difference without an interval") for line in footnotes(report))
    assert '"low": null' in as_json(report)


def test_the_base_with_other_guidance_is_not_the_base(lab: Lab) -> None:
    base = lab.base()
    lab.run("dpo", title="dpo")
    guided = variant(base, guidance_scale=5)
    lab.judge(base, shift=0.4, place=base.evaluation_of(lab.protocol.signature, guided), variant=guided)
    report = make_report(lab.runs, against="base, guidance 5")
    text = markdown(report)
    assert "**Win rate against base, guidance 5, %**" in text
    assert "over base, guidance 5" in text
    assert "It says what training did" not in text
    assert "with --placebo" not in text
    lines = footnotes(report)
    assert not any("at the protocol's scale" in line for line in lines)
    assert (
        "base, guidance 5 was sampled in another way than by the protocol, and all rows are compared with that."
        in lines
    )


def test_known_misses_name_their_columns(lab: Lab) -> None:
    """Seeds of dpo win all or nothing by gold, and always half of the prompts by PickScore."""
    lab.identities = {"gold": {"version": 1}, "pickscore": {"version": 1}}
    zeros = np.zeros((len(PROMPTS), 2))
    lab.judge(lab.base_alone(), shift=0, scores=dict.fromkeys(lab.identities, zeros))
    halves = np.repeat([[1.0, 1.0], [-1.0, -1.0]], len(PROMPTS) // 2, axis=0)
    random = np.random.default_rng(0)
    for seed in range(4):
        noise = random.normal(seed % 2, size=zeros.shape)
        lab.judge(
            lab.train("dpo", seed, title="dpo"),
            shift=0,
            scores={"gold": zeros + 1 - 2 * (seed % 2), "pickscore": noise},
        )
    lab.judge(
        lab.train("sft", 0, title="sft"),
        shift=0,
        scores={"gold": halves, "pickscore": halves * random.random(zeros.shape)},
    )
    report = make_report(lab.runs)
    sft = report.rows[2]
    rates = {name: score.win_rate for name, score in sft.scores.items()}
    assert {name: rate and rate.miss for name, rate in rates.items()} == {"gold": "too wide", "pickscore": None}
    (wide,) = [line for line in footnotes(report) if line.startswith("Conservative: ")]
    assert wide.endswith("(sft in over base, Gold).")


def correlations(report: Report) -> TextTable:
    """The table of rank correlations."""
    (found,) = [grid for grid in report_tables(report) if grid.title.startswith("Do the metrics")]
    return found


def test_many_rows(lab: Lab) -> None:
    lab.base()
    for number in range(4):
        train(lab, f"a{number}", range(2), number / 5)
    report = make_report(lab.runs)
    (hint,) = correlations(report).notes
    assert hint.endswith("4 rows: a hint at most.")
    for number in range(4, WIDEST + 1):
        train(lab, f"a{number}", range(2), number / 5)
    report = make_report(lab.runs, primary="judges")
    rough, together, *_ = correlations(report).notes
    assert rough.endswith("11 rows: each value is rough.")
    assert together == "From 8 rows on, those at 0.90 or more count as one metric in the mean over judges."
    assert not any(grid.title.startswith("Row minus column") for grid in report_tables(report))
    assert (
        "Differences of all pairs of these 11 rows are in JSON; tables show those of up to 10 rows."
        in report_tables(report)[0].notes
    )
    assert any(line.startswith("Counted as one metric: ") for line in correlations(report).notes)


def test_correlations_are_over_the_rows_that_have_both_metrics(lab: Lab) -> None:
    lab.base()
    for number in range(9):
        train(lab, f"a{number}", [0], number / 5)
    for number in range(2):  # without gold
        run = lab.train(f"b{number}", title=f"b{number}")
        lab.judge(run, shift=0.3 * number)
        drop(run.evaluation(lab.protocol.signature), "gold")
    report = make_report(lab.runs, primary="judges")
    note, rule, *_ = correlations(report).notes
    assert note.endswith("9 to 11 rows, those that have both metrics: each value is rough.")
    assert rule.startswith("From 8 rows on")
    values = {(each.one, each.other): each.rows for each in report.endpoint.correlations} if report.endpoint else {}
    assert sorted(set(values.values())) == [9, 11]


def test_the_count_of_correlated_rows_is_of_those_that_are_compared(lab: Lab) -> None:
    lab.base()
    for number in range(9):
        train(lab, f"a{number}", [0], number / 5)
    train(lab, "other-seeds", [7])
    (note,) = correlations(make_report(lab.runs, against="a0")).notes
    assert note.endswith("9 rows: each value is rough.")  # eight methods and the base, which other-seeds is not beside


def test_a_row_that_has_its_placebo_alone_is_shown(lab: Lab) -> None:
    lab.base()
    train(lab, "dpo", [0])
    train(lab, "sft", [3])
    placebo(lab, "sft", [3])
    report = make_report(lab.runs, against="dpo")
    cells = dict(report_tables(report)[0].rows)["sft"]
    assert (cells[1], cells[2] == DASH) == (DASH, False)


def test_weights_without_a_seed_do_not_make_seeds_differ(lab: Lab) -> None:
    base = lab.base()
    train(lab, "dpo", [0, 1], 0.4)
    sampled = variant(base, guidance_scale=5)
    lab.judge(base, shift=0.1, place=base.evaluation_of(lab.protocol.signature, sampled), variant=sampled)
    (pairs,) = [grid for grid in report_tables(make_report(lab.runs)) if grid.title.startswith("Row minus column")]
    assert "Only training seeds that both have count" not in pairs.notes[0]
    train(lab, "sft", [0], 0.1)
    (pairs,) = [grid for grid in report_tables(make_report(lab.runs)) if grid.title.startswith("Row minus column")]
    assert "Only training seeds that both have count" in pairs.notes[0]


def test_a_run_that_was_trained_with_a_limit_and_evaluated_in_full(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", config={"limit": 8})
    report = make_report(lab.runs)
    assert "Trial (--limit 8): at most the first 8 training pairs were used (Diffusion-DPO)." in footnotes(report)
    assert report_tables(report)[0].title.endswith("win rate, % (a trial: it says nothing about the methods)")


def test_how_many_tests_marks_are_adjusted_for(lab: Lab) -> None:
    """Two methods and a placebo: three win rates over the base; besides, one over a placebo, three scores' differences and win rates by
    two further metrics, and by Gold again, of three rows."""
    lab.base()
    for seed in range(2):
        lab.run("dpo", seed, shift=0.1 + 0.1 * seed)
        lab.run("dpo", seed, name="default-placebo", shift=0.05 * seed, config={"placebo_of": "default"})
        lab.run("sft", seed, title="SFT", shift=-0.1 - 0.1 * seed)
    (line,) = [each for each in footnotes(make_report(lab.runs)) if each.startswith("Bold is better")]
    metrics = len(lab.identities)
    assert "after Holm's adjustment over the rows (3 tests)" in line
    assert f"after Holm's adjustment over all of them ({1 + 3 * metrics + 3 * (metrics - 1)} tests)" in line
