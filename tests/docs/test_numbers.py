"""The tables of the README and of the pages are those of reports, which are kept beside the pages as JSON, with the runs they are of."""

from __future__ import annotations

import json
import re
import runpy
import statistics
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from archived import bench, unpacked
from pages import DOCS, ROOT

from bench.core.errors import UserError
from bench.records.scores import MetricScores
from bench.scoring.folder import score_folder
from bench.scoring.loop import Judge
from bench.scoring.metric import CODE, METRICS
from bench.tiny import TINY

README, FINDINGS, PLACEBO, ONLINE = (
    ROOT / "README.md",
    *(DOCS / f"{name}.md" for name in ("findings", "placebo", "findings-online")),
)


class Study:
    """A report that pages show, and the archive of its runs.

    Attributes:
        report: the report, parsed JSON.
        rows: its rows by label.
        trained: the labels of all rows but the base.
        archive: the runs.
    """

    def __init__(self, name: str) -> None:
        self.report: dict[str, Any] = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
        self.rows = {row["label"]: row for row in self.report["rows"]}
        self.trained = [row["label"] for row in self.report["rows"][1:]]
        self.archive = DOCS / f"{name}.tar.xz"


OFFLINE_STUDY, ONLINE_STUDY = Study("readme-study"), Study("online-study")
EQUAL_STUDY, FLOW_STUDY, PLACEBO_STUDY = Study("online-equal-cost"), Study("online-flow"), Study("placebo-study")
EQUAL_COST, FLOW = "The same number of network evaluations", "Flow-GRPO on a flow model"
"""Sections of the page on online methods that are about studies of their own."""
FIVE_SEEDS = "Five seeds of four methods"
"""The same of the page on placebos."""
EVERY_STUDY = {
    "readme-study": OFFLINE_STUDY,
    "placebo-study": PLACEBO_STUDY,
    "online-study": ONLINE_STUDY,
    "online-equal-cost": EQUAL_STUDY,
    "online-flow": FLOW_STUDY,
}
STUDIES = pytest.mark.parametrize("study", EVERY_STUDY.values(), ids=EVERY_STUDY)


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


PAGES = {
    "readme-study": [(README, ""), (FINDINGS, ""), (PLACEBO, "")],
    "placebo-study": [(PLACEBO, FIVE_SEEDS)],
    "online-study": [(ONLINE, "")],
    "online-equal-cost": [(ONLINE, EQUAL_COST)],
    "online-flow": [(ONLINE, FLOW)],
}
"""Where the tables of a study are shown: the pages, and the sections, of those that show several studies."""


SCRIPTS = ("Gain and cost",)
"""How headings of tables begin that are not of a report: tests compare them with what their scripts print."""


def blocks(page: Path, section: str) -> list[tuple[str, list[str]]]:
    """`by_heading`, as pairs, of a section, or of a page without the sections that are about other studies."""
    others = [
        name for places in PAGES.values() for where, name in places if where == page and name not in ("", section)
    ]
    parts = re.split(r"^## (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[tuple[str, list[str]]] = []
    for name, text in zip(["", *parts[1::2]], parts[::2], strict=True):
        if (name == section) if section else (name not in others):
            found += by_heading(text).items()
    return found


def by_heading(text: str) -> dict[str, list[str]]:
    """The lines of tables and footnotes below each heading in bold."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in text.split("\n"):
        if re.fullmatch(r"\*\*.+\*\*", line):
            heading = line
        elif heading and line.startswith(("|", "- ")):
            found.setdefault(heading, []).append(line)
        elif line:
            heading = ""
    return found


@STUDIES
def test_the_runs_of_the_tables_are_an_archive_whose_tables_come_out_again(study: Study, tmp_path: Path) -> None:
    runs = str(unpacked(study.archive, tmp_path))
    records = [path.read_text(encoding="utf-8") for path in Path(runs).rglob("*.json")]
    assert not any(re.search(r'"/\w', text) for text in records), "a path of the machine that trained"
    made = json.loads(bench(tmp_path, "report", "--runs", runs, "--format", "json"))
    text = bench(tmp_path, "report", "--runs", runs, "--format", "markdown")
    assert ("about the same number of network evaluations" in text) == (study is EQUAL_STUDY)
    assert ("Rows differ in cost" in text) == (study in (OFFLINE_STUDY, PLACEBO_STUDY, ONLINE_STUDY))
    printed = by_heading(text)
    for page, section in PAGES[study.archive.name.removesuffix(".tar.xz")]:
        shown = [(head, lines) for head, lines in blocks(page, section) if not head.startswith(SCRIPTS, 2)]
        assert shown, page.name
        for heading, lines in shown:
            rows = [line for line in printed[heading] if line.startswith("|")]
            rows = [row for row in rows if row in lines or "placebo)" not in row]  # a page may leave placebos out
            assert [line for line in lines if line.startswith("|")] == rows, f"{page.name}, {heading}"
            notes = {line for line in lines if line.startswith("- ")}
            notes -= {line for line in notes if line.startswith("- bench ")}  # names the version, which goes on
            assert notes <= set(text.split("\n")), f"{page.name}, {heading}"
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
    script = runpy.run_path(str(DOCS / "over_time.py"))
    runs = script["watched"](unpacked(DOCS / "online-curves.tar.xz", tmp_path))
    assert "\n".join(script["table"](runs)).strip() in ONLINE.read_text(encoding="utf-8")
    for _, record, lines in runs:
        (reward,) = (name for name in record.trained_on if name in record.titles)
        (risen, by), (fallen, within) = (script["change"](record, lines, name) for name in (reward, "gold"))
        assert risen[-1] - by[-1] > 0
        assert fallen[-1] < max(fallen) - within[-1]  # gold is below where it was


def test_what_gold_gains_on_true_and_on_shuffled_preferences(tmp_path: Path) -> None:
    script, runs = runpy.run_path(str(DOCS / "placebo_gains.py")), unpacked(PLACEBO_STUDY.archive, tmp_path)
    for algorithms in (["dpo", "inpo", "ipo"], ["sft"]):
        made = "\n".join(script["lines"](script["gains"](runs, algorithms)))
        assert made in PLACEBO.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="has no runs of kto with their placebos"):
        script["gains"](runs, ["kto"])


def test_how_reliable_the_order_of_the_findings_is(tmp_path: Path) -> None:
    script = runpy.run_path(str(DOCS / "reliability.py"))
    printed = script["lines"](script["gains"](unpacked(OFFLINE_STUDY.archive, tmp_path)))
    middle, low, high = re.findall(r"0\.\d\d", printed[0])
    said = f"with a rank correlation of {middle} ({low} to {high} in nine of ten splits). The seeds are: each of the three puts another method first"
    assert said in FINDINGS.read_text(encoding="utf-8")
    firsts = [line.partition(": ")[2].partition(" > ")[0] for line in printed if re.match(r"seeds \d:", line)]
    assert len(set(firsts)) == len(firsts) == 3


@pytest.mark.parametrize(
    "study", [ONLINE_STUDY, EQUAL_STUDY, PLACEBO_STUDY], ids=["online-study", "online-equal-cost", "placebo-study"]
)
def test_studies_of_tiny_are_under_one_protocol_and_have_one_base(study: Study) -> None:
    assert study.report["signature"] == OFFLINE_STUDY.report["signature"]
    for name, score in OFFLINE_STUDY.report["rows"][0]["scores"].items():
        assert study.report["rows"][0]["scores"][name]["mean"] == score["mean"]


@pytest.mark.parametrize("name", ["tiny-quality", "tiny-quality-dpo"])
def test_the_judges_of_the_tiny_world(name: str) -> None:
    script = runpy.run_path(str(DOCS / "tiny_quality.py"))
    figures = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
    assert "\n".join(script["lines"](figures)) in (DOCS / "tiny-world.md").read_text(encoding="utf-8")


KEPT: dict[str, Any] = json.loads((Path(__file__).parent / "scores.json").read_text(encoding="utf-8"))
"""Scores of the first pairs of the shipped preferences, by the commit and the digests of the code that made them."""
SIDES = ("jpg_0", "jpg_1")


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MetricScores]:
    """The same images scored with today's code, by metric."""
    root = tmp_path_factory.mktemp("scored")
    images = root / "images"
    images.mkdir()
    pairs = len(KEPT["metrics"]["gold"]["scores"]) // len(SIDES)
    rows = pq.read_table(str(TINY.data), columns=["caption", *SIDES]).slice(0, pairs).to_pylist()
    for number, row in enumerate(rows):
        for side in SIDES:
            (images / f"{number:02}_{side}.jpg").write_bytes(row[side])
            (images / f"{number:02}_{side}.txt").write_text(row["caption"], encoding="utf-8")
    judges = {name: Judge(METRICS.get(name), checkpoint) for name, checkpoint in TINY.metrics.items()}
    return {metric.name: metric for metric in score_folder(images, None, judges, root / "scores.parquet").metrics}


@pytest.mark.parametrize("name", TINY.metrics)
def test_todays_code_scores_as_the_code_of_the_studies(name: str, today: dict[str, MetricScores]) -> None:
    """The signatures in the studies name the code that made their scores; today's code has other digests and the same scores.

    So what the studies found holds for today's scorers, although `bench report` refuses to put both into one column.  Where this
    fails, the studies must be scored again (`bench rescore`).
    """
    kept = KEPT["metrics"][name]["scores"]
    assert today[name].scores == pytest.approx(kept, rel=0, abs=1e-4 * statistics.stdev(kept))
    scored = {metric["name"]: metric["identity"] for metric in OFFLINE_STUDY.report["metrics"]}[name]
    assert dict(today[name].identity) | {CODE: None} == scored | {CODE: None}


@pytest.mark.parametrize("name", TINY.metrics)
def test_the_kept_scores_were_made_by_the_code_of_the_studies(name: str) -> None:
    scored = {metric["name"]: metric["identity"][CODE] for metric in OFFLINE_STUDY.report["metrics"]}[name]
    assert KEPT["metrics"][name][CODE] == {part: scored[part] for part in ("own", "harness")}


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
