"""What papers have published stands beside our tables, never in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from io import StringIO

import forked
import pytest
from lab import PUBLISHED_INFOS, Lab
from rich.console import Console

from bench.core.errors import UserError
from reports.content import Report, with_published
from reports.footnotes import footnotes
from reports.latex import latex
from reports.page import page
from reports.published import PublishedTable, read_published, select
from reports.published_tables import published_notes, published_tables
from reports.render import as_csv, as_json, markdown, print_report
from reports.report import make_report
from reports.result_tables import report_tables
from reports.text_table import TextTable, Verdict


def report_of(lab: Lab, model: str, metrics: Sequence[str] = ("pickscore", "hpsv2", "imagereward")) -> Report:
    """The base model alone, judged by some metrics, with what is published."""
    lab.infos, lab.identities = PUBLISHED_INFOS, {name: {"version": 1} for name in metrics}
    lab.protocol = lab.protocol.model_copy(update={"model": model})
    lab.base(model=model)
    return with_published(make_report(lab.runs))


def sections(report: Report) -> tuple[tuple[TextTable, ...], str]:
    assert report.published is not None
    return published_tables(report, report.published), "\n".join(published_notes(report, report.published))


def row(grid: TextTable, source: str, method: str) -> dict[str, str]:
    (cells,) = (cells for label, cells in grid.rows if label == method and cells[0].value.startswith(f"{source} ["))
    return dict(zip(grid.columns, (cell.value for cell in cells), strict=True))


def test_the_rows_of_a_paper_with_their_source_and_prompts(lab: Lab) -> None:
    (scores, wins), notes = sections(report_of(lab, "sdxl"))
    assert scores.columns == ("source", "prompts", "PickScore", "HPSv2.1", "ImageReward")
    mine = row(scores, "SPO", "Diffusion-DPO")
    number = re.search(r"\[\d+\]", mine["source"])
    assert number
    assert mine["prompts"] == "Pick-a-Pic validation_unique (500)"
    assert (mine["PickScore"], mine["ImageReward"]) == ("22.64", "0.9436")
    assert f"{number[0]} SPO, CVPR 2025, arXiv 2406.04314v3, Table 1: Pick-a-Pic validation_unique (500), mean" in notes
    assert row(scores, "MaPO", "SmPO")["ImageReward"] == "-"  # that table has no such column
    assert wins.columns == scores.columns
    inpo = [[cell.value for cell in cells[1:3]] for label, cells in wins.rows if label == "InPO vs DPO-SDXL"]
    assert inpo == [["HPDv2 test", "59.28"], ["PartiPrompts", "56.92"]]


def test_what_is_doubtful_is_marked_with_its_reason(lab: Lab) -> None:
    (scores, wins), notes = sections(report_of(lab, "sdxl"))
    assert row(scores, "SPO", "SPO")["HPSv2.1"] == "31.80?"
    assert row(scores, "LPO", "SPO")["HPSv2.1"] == "31.15"
    assert row(scores, "SmPO-Diffusion", "SmPO-SDXL")["PickScore"] == "23.62?"
    assert any(label == "InPO vs Base-SDXL" and cells[3].value.endswith("?") for label, cells in wins.rows)
    for reason in (
        "printed as HPSv2, but another paper lists the same numbers as HPSv2.1",
        "read in two secondary notes",
        "the poster does not name the version of HPS",
    ):
        assert re.search(rf"^\? in (\[\d+\] ?)+: {reason}", notes, re.MULTILINE)


def test_two_versions_of_a_metric_keep_their_columns(lab: Lab) -> None:
    (scores, _), _ = sections(report_of(lab, "sdxl", ["hpsv2", "hpsv2.0"]))
    lpo = row(scores, "LPO", "SDXL")
    assert (lpo["HPSv2.1"], lpo["HPSv2.0"]) == ("26.05", "27.06")
    dpo = row(scores, "Diffusion-DPO", "DPO-SDXL")
    assert (dpo["HPSv2.1"], dpo["HPSv2.0"]) == ("-", "28.16")


def test_only_metrics_of_the_report_and_only_its_model(lab: Lab) -> None:
    (scores, wins), notes = sections(report_of(lab, "sd15", ["imagereward"]))
    assert scores.columns == wins.columns == ("source", "prompts", "ImageReward")
    assert not any("SDXL" in label for grid in (scores, wins) for label, _ in grid.rows)
    assert "MaPO" not in notes


def test_the_hub_id_of_a_published_model_is_that_model(lab: Lab) -> None:
    (scores, _), _ = sections(report_of(lab, "stabilityai--stable-diffusion-xl-base-1.0"))
    assert row(scores, "MaPO", "SDXL")["PickScore"] == "22.4"


def test_another_printed_scale_is_turned_into_ours_and_said(lab: Lab) -> None:
    report = report_of(lab, "sdxl")
    table = PublishedTable.model_validate(
        {
            "paper": "Odd", "venue": "a place", "link": "", "place": "Table 9", "model": "sdxl", "prompts": "some",
            "kind": "score", "statistic": "mean",
            "columns": {"IR": {"metric": "imagereward", "factor": 100}, "HPS": {"metric": "hpsv2", "factor": 1}},
            "rows": [{"method": "theirs", "values": {"IR": 75.06, "HPS": 0.2735}}],
        }
    )  # fmt: skip
    numbers = read_published().model_copy(update={"tables": [table]})
    chosen = select(numbers, "sdxl", report.metrics)
    (grid,) = published_tables(report, chosen)
    assert row(grid, "Odd", "theirs") == {
        "source": "Odd [1]", "prompts": "some", "HPSv2.1": "27.35", "ImageReward": "0.7506",
    }  # fmt: skip
    notes = published_notes(report, chosen)
    assert "[1] prints ImageReward, HPSv2.1 in a different scale; converted here." in notes


def test_nothing_is_published_about_tiny(full_lab: Lab) -> None:
    shown, notes = sections(with_published(make_report(full_lab.runs)))
    assert shown == ()
    assert notes.startswith("There are no published numbers for 'tiny' with")
    assert "sd15 and sdxl" in notes


def test_our_own_tables_stay_as_they_are(full_lab: Lab) -> None:
    plain = make_report(full_lab.runs)
    beside = with_published(plain)
    assert report_tables(beside) == report_tables(plain)
    assert footnotes(beside) == footnotes(plain)
    assert markdown(beside).startswith(markdown(plain))
    assert latex(beside).startswith(latex(plain))


def test_published_numbers_are_never_marked_better_or_worse(lab: Lab) -> None:
    shown, _ = sections(report_of(lab, "sdxl"))
    assert {cell.verdict for grid in shown for _, cells in grid.rows for cell in cells} == {Verdict.OPEN}


def test_every_format_has_them_in_a_section_of_their_own(lab: Lab) -> None:
    report = report_of(lab, "sdxl")
    ours, _, theirs = markdown(report).partition("## Published, not run here")
    assert "22.64" not in ours
    assert re.search(r"^\| Diffusion-DPO \| SPO \[\d+\] \|", theirs, re.MULTILINE)
    for block in theirs.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1

    ours, _, theirs = latex(report).partition(r"\section*{Published, not run here}")
    assert "22.64" not in ours
    assert "22.64" in theirs

    value = json.loads(as_json(report))
    assert value["published"]["sources"][0]["paper"] == "SmPO-Diffusion"
    assert len(value["rows"]) == 1

    stream = StringIO()
    print_report(report, Console(file=stream, width=160))
    ours, _, theirs = stream.getvalue().partition("Published, not run here")
    assert "22.64" not in ours
    assert "22.64" in theirs

    with pytest.raises(UserError, match="csv has a single table"):
        as_csv(report)


def test_the_page_has_them_in_a_section_of_their_own(lab: Lab) -> None:
    class Sections(HTMLParser):
        inside = ""
        values: dict[str, list[str]]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "section":
                self.inside = dict(attrs).get("class") or "ours"

        def handle_data(self, data: str) -> None:
            self.values.setdefault(self.inside, []).append(data)

    reader = Sections()
    reader.values = {}
    reader.feed(page(report_of(lab, "sdxl")))
    assert "22.64" in reader.values["published"]
    assert "22.64" not in reader.values["ours"]
    assert "Published, not run here" in reader.values["published"]


def test_the_command_line(full_lab: Lab) -> None:
    def report(*words: str) -> subprocess.CompletedProcess[str]:
        words = ("report", "--published", "--runs", str(full_lab.runs), *words)
        return forked.run(words, full_lab.runs, {**os.environ, "COLUMNS": "200"})

    shown = report()
    assert shown.returncode == 0, shown.stderr
    assert "no published numbers for 'tiny'" in shown.stdout
    refused = report("--format", "csv")
    assert refused.returncode == 2
    assert "drop --published" in refused.stderr


def test_every_carried_table_names_its_source_and_fills_its_columns() -> None:
    numbers = read_published()
    for table in numbers.tables:
        assert table.model in numbers.models
        assert table.paper
        assert table.venue or table.link
        assert table.place
        for line in table.rows:
            assert line.values
            assert line.values.keys() <= table.columns.keys()
            if table.kind == "win rate":
                assert " vs " in line.method
                assert all(0 <= value <= 100 for value in line.values.values())


def test_trailing_zeros_of_a_published_column_are_kept(lab: Lab) -> None:
    """SPO prints ImageReward with four decimals, so its 0.538 is 0.5380."""
    table = next(table for table in read_published().tables if table.paper == "SPO" and table.model == "sdxl")
    report = report_of(lab, "sdxl", ["imagereward"])
    chosen = select(read_published().model_copy(update={"tables": [table]}), "sdxl", report.metrics)
    (grid,) = published_tables(report, chosen)
    assert [cells[-1].value for _, cells in grid.rows] == ["0.5380", "0.9436", "0.7165", "1.0803"]
