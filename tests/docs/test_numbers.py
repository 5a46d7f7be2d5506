"""The tables of the README and of the pages are those of two reports, which are kept beside the pages as JSON, with the runs they are of."""

from __future__ import annotations

import json
import lzma
import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
from pages import DOCS, ROOT

README, FINDINGS, PLACEBO, ONLINE = (
    ROOT / "README.md",
    *(DOCS / f"{name}.md" for name in ("findings", "placebo", "findings-online")),
)
COSTS = ("pairs", "policy_forwards", "policy_backwards", "reference_forwards", "samples", "reward_calls")


class Study:
    """A report that pages show, and the archive of its runs.

    Attributes:
        report: the report, parsed JSON.
        rows: its rows by label.
        trained: the labels of all rows but the base.
        methods: those of them that are not placebos.
        metrics: names of the metrics by title.
        archive: the runs.
    """

    def __init__(self, name: str) -> None:
        self.report: dict[str, Any] = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
        self.rows = {row["label"]: row for row in self.report["rows"]}
        self.trained = [row["label"] for row in self.report["rows"][1:]]
        self.methods = [label for label in self.trained if self.rows[label]["placebo_of"] is None]
        self.metrics = {metric["title"]: metric["name"] for metric in self.report["metrics"]}
        self.archive = DOCS / f"{name}.tar.xz"


OFFLINE_STUDY, ONLINE_STUDY = Study("readme-study"), Study("online-study")
EQUAL_STUDY, FLOW_STUDY = Study("online-equal-cost"), Study("online-flow")
EQUAL_COST, FLOW = "The same number of network evaluations", "Flow-GRPO on a flow model"
"""Sections of the page on online methods that are about studies of their own."""
EVERY_STUDY = {
    "readme-study": OFFLINE_STUDY,
    "online-study": ONLINE_STUDY,
    "online-equal-cost": EQUAL_STUDY,
    "online-flow": FLOW_STUDY,
}
STUDIES = pytest.mark.parametrize("study", EVERY_STUDY.values(), ids=EVERY_STUDY)


def tables(page: Path, heading: str, section: str = "") -> Iterator[dict[str, Any]]:
    """The rows of the table below a heading, the first of the page or of a section, cells by column; the label is in ``""``."""
    text = page.read_text(encoding="utf-8")
    if section:
        text = text.partition(f"\n## {section}\n")[2]
    lines = text.partition(f"**{heading}**")[2].split("\n")
    begin = next(number for number, line in enumerate(lines) if line.startswith("|"))
    end = next(number for number, line in enumerate(lines) if number > begin and not line.startswith("|"))
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:end]]
    for row in rows:
        yield dict(zip(head, row, strict=True))


SHOWN = pytest.mark.parametrize(
    ("page", "section", "study"),
    [(README, "", OFFLINE_STUDY), (ONLINE, "", ONLINE_STUDY), (ONLINE, FLOW, FLOW_STUDY)],
    ids=["README", "online", "flow"],
)


def numbers(cell: str) -> list[float]:
    return [float(each.replace(",", "")) for each in re.findall(r"[+-]?[\d.,]*\d", cell)]


def in_percent(rate: dict[str, float]) -> list[float]:
    """A share and its interval as tables show them."""
    return [round(100 * rate[name], 1) for name in ("mean", "low", "high")]


@SHOWN
def test_win_rates(page: Path, section: str, study: Study) -> None:
    shown = list(tables(page, "Win rate against the base, %", section))
    assert [cells[""] for cells in shown] == study.methods
    for cells in shown:
        row = study.rows[cells[""]]
        assert int(cells["seeds"]) == len(row["seeds"])
        for title, name in study.metrics.items():
            assert numbers(cells[title]) == pytest.approx(in_percent(row["scores"][name]["win_rate"]), abs=0.051)
            assert ("†" in cells[title]) == row["scores"][name]["trained_on"]


@SHOWN
def test_costs(page: Path, section: str, study: Study) -> None:
    shown = list(tables(page, "Cost of one training run", section))
    assert [cells[""] for cells in shown] == study.methods
    for cells in shown:
        cost = study.rows[cells[""]]["cost"]
        for name in COSTS:
            if (column := name.replace("_", " ")) in cells or cost[name]:
                assert numbers(cells[column]) == [round(cost[name])]


@pytest.mark.parametrize(
    ("page", "section", "study"),
    [(FINDINGS, "", OFFLINE_STUDY), (ONLINE, "", ONLINE_STUDY), (ONLINE, FLOW, FLOW_STUDY)],
    ids=["findings", "online", "flow"],
)
def test_scores(page: Path, section: str, study: Study) -> None:
    shown = list(tables(page, "Score, and its difference from the base", section))
    assert [cells[""] for cells in shown] == [row["label"] for row in study.report["rows"]]
    for cells in shown:
        for title, name in study.metrics.items():
            score = study.rows[cells[""]]["scores"][name]
            mean, *difference = numbers(cells[title])
            assert mean == pytest.approx(score["mean"], abs=0.0051)
            if score["difference"] is not None:
                middle, high = score["difference"]["mean"], score["difference"]["high"]
                assert difference == pytest.approx([middle, high - middle], abs=0.0051)


@pytest.mark.parametrize("studies", [[OFFLINE_STUDY, ONLINE_STUDY], [EQUAL_STUDY]], ids=["all", "equal cost"])
def test_a_table_of_gains_and_costs_is_what_its_script_prints(studies: list[Study]) -> None:
    script = runpy.run_path(str(DOCS / "gain_and_cost.py"))
    made = list(script["lines"](script["methods"]([study.report for study in studies])))
    assert "\n".join(made) in ONLINE.read_text(encoding="utf-8")


def test_the_runs_at_equal_cost_have_the_forwards_of_their_budget() -> None:
    for label in EQUAL_STUDY.trained:
        cost = EQUAL_STUDY.rows[label]["cost"]
        forwards = cost["policy_forwards"] + 2 * cost["policy_backwards"] + cost["reference_forwards"]
        assert 11_520 <= forwards < 1.1 * 11_520, label


def test_gains_and_costs_of_both_studies() -> None:
    rows = {**ONLINE_STUDY.rows, **OFFLINE_STUDY.rows}
    shown = list(tables(ONLINE, "Gain and cost, online and offline"))
    assert {cells[""] for cells in shown} == {*ONLINE_STUDY.methods, *OFFLINE_STUDY.methods}
    assert [numbers(cells["TFLOP"]) for cells in shown] == sorted(numbers(cells["TFLOP"]) for cells in shown)
    for cells in shown:
        row = rows[cells[""]]
        cost, gain = row["cost"], row["scores"]["gold"]["difference"]
        assert numbers(cells["gold, difference from the base"]) == pytest.approx(
            [gain["mean"], gain["high"] - gain["mean"]], abs=0.0051
        )
        assert numbers(cells["TFLOP"]) == [pytest.approx(cost["flops"] / 1e12, abs=0.051)]
        assert [numbers(cells[name]) for name in ("samples", "reward calls")] == [
            [round(cost["samples"])], [round(cost["reward_calls"])]
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "section", "study"),
    [
        (README, "", OFFLINE_STUDY), (FINDINGS, "", OFFLINE_STUDY), (PLACEBO, "", OFFLINE_STUDY), (ONLINE, "", ONLINE_STUDY),
        (ONLINE, EQUAL_COST, EQUAL_STUDY),
    ],
    ids=["README", "findings", "placebo", "online", "equal cost"],
)  # fmt: skip
def test_what_training_did_and_what_preferences_did(page: Path, section: str, study: Study) -> None:
    shown = list(tables(page, "Primary endpoint, gold: win rate, %", section))
    assert [cells[""] for cells in shown] == study.trained
    for cells in shown:
        row = study.rows[cells[""]]
        assert numbers(cells["over base"]) == pytest.approx(in_percent(row["scores"]["gold"]["win_rate"]), abs=0.051)
        if row["over_placebo"] is not None:
            assert numbers(cells["over placebo"]) == pytest.approx(in_percent(row["over_placebo"]), abs=0.051)
        if row["placebo_of"] is None:
            assert cells["group"] == row["standing"]["groups"]


def bench(folder: Path, *words: str) -> str:
    """What a command prints."""
    done = forked.run(words, folder, os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


@STUDIES
def test_the_runs_of_the_tables_are_an_archive_whose_tables_come_out_again(study: Study, tmp_path: Path) -> None:
    (tmp_path / "study.tar").write_bytes(lzma.decompress(study.archive.read_bytes()))
    bench(tmp_path, "verify", "study.tar", "--output", "study")
    records = [path.read_text(encoding="utf-8") for path in (tmp_path / "study" / "runs").rglob("*.json")]
    assert not any(re.search(r'"/\w', text) for text in records), "a path of the machine that trained"
    made = json.loads(bench(tmp_path, "report", "--runs", "study/runs", "--format", "json"))
    text = bench(tmp_path, "report", "--runs", "study/runs", "--format", "markdown")
    assert ("about the same number of network evaluations" in text) == (study is EQUAL_STUDY)
    assert ("Rows differ in cost" in text) == (study in (OFFLINE_STUDY, ONLINE_STUDY))
    assert made["citation"].partition(" | ")[2] == study.report["citation"].partition(" | ")[2]  # the version goes on
    assert [row["label"] for row in made["rows"]] == [row["label"] for row in study.report["rows"]]
    for row in made["rows"]:
        for name, score in row["scores"].items():
            expected = study.rows[row["label"]]["scores"][name]
            assert score["mean"] == pytest.approx(expected["mean"], rel=1e-9)
            assert score["win_rate"] is None or score["win_rate"]["low"] == pytest.approx(
                expected["win_rate"]["low"], rel=1e-6
            )


def test_the_changes_over_time_are_those_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "curves.tar").write_bytes(lzma.decompress((DOCS / "online-curves.tar.xz").read_bytes()))
    bench(tmp_path, "verify", "curves.tar", "--output", "curves")
    script = runpy.run_path(str(DOCS / "over_time.py"))
    runs = script["watched"](tmp_path / "curves" / "runs")
    assert "\n".join(script["table"](runs)).strip() in ONLINE.read_text(encoding="utf-8")
    for _, record, lines in runs:
        (reward,) = (name for name in record.trained_on if name in record.titles)
        (risen, by), (fallen, within) = (script["change"](record, lines, name) for name in (reward, "gold"))
        assert risen[-1] - by[-1] > 0
        assert fallen[-1] < max(fallen) - within[-1]  # gold is below where it was


@pytest.mark.parametrize("study", [ONLINE_STUDY, EQUAL_STUDY], ids=["online-study", "online-equal-cost"])
def test_studies_of_tiny_are_under_one_protocol_and_have_one_base(study: Study) -> None:
    assert study.report["signature"] == OFFLINE_STUDY.report["signature"]
    for name, score in OFFLINE_STUDY.report["rows"][0]["scores"].items():
        assert study.report["rows"][0]["scores"][name]["mean"] == score["mean"]


def test_the_flow_model_is_judged_by_the_same_scorers() -> None:
    for one, other in zip(FLOW_STUDY.report["metrics"], EQUAL_STUDY.report["metrics"], strict=True):
        assert (one["name"], one["identity"]["weights"]) == (other["name"], other["identity"]["weights"])


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_pages_that_name_a_protocol_or_a_metrics_signature_name_the_reports(page: Path) -> None:
    reports = [study.report for study in EVERY_STUDY.values()]
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"[Pp]rotocol ([0-9a-f]{12})\b", text)) <= {report["signature"] for report in reports}
    cited = "\n".join(line for line in text.split("\n") if "-paired 95 %" in line)  # as `bench report` ends
    metrics = [metric for report in reports for metric in report["metrics"]]
    for title in {metric["title"] for metric in metrics}:
        expected = {metric["signature"] for metric in metrics if metric["title"] == title}
        assert set(re.findall(rf"{re.escape(title)} ([0-9a-f]{{12}})\b", cited)) <= expected, title
