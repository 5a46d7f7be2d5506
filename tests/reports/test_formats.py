"""Every format is read back by somebody else's reader."""

from __future__ import annotations

import dataclasses
import html.parser
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from lab import CODE, HARNESS, PROMPTS, Lab, fill
from rich.console import Console

from bench.core.errors import UserError
from reports.latex import latex
from reports.page import page
from reports.pictures import compare
from reports.render import as_csv, as_json, markdown, print_report
from reports.report import FORMATS, make_report, show_report, write_report
from reports.report import report as report_of

VOID = {"meta", "img", "link", "br", "hr", "input", "col", "wbr"}


class Page(html.parser.HTMLParser):
    """Tags and attributes of a page; checks that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_csv_reads_back(full_lab: Lab) -> None:
    report = make_report(full_lab.runs)
    table = pd.read_csv(io.StringIO(as_csv(report)))
    assert len(table) == 4 * 3
    assert set(table["protocol_signature"]) == {full_lab.protocol.signature}
    assert table.groupby("metric")["scorer_signature"].unique()["gold"].tolist() == ["974c736658e4"]
    line = table.set_index(["label", "metric"]).loc[("Diffusion-DPO", "pickscore")]
    score = report.rows[1].scores["pickscore"]
    assert score.difference is not None
    assert score.win_rate is not None
    assert (line["mean"], line["difference_low"]) == pytest.approx((score.mean, score.difference.low), rel=1e-12)
    assert (line["win_rate"], line["win_rate_high"]) == pytest.approx(
        (score.win_rate.mean, score.win_rate.high), rel=1e-12
    )
    assert (line["seeds"], line["prompts"], line["pairs"]) == (3, 12, 960)
    assert (line["reference"], line["win_rate_seeds"], line["primary_over_reference_seeds"]) == ("base", 3, 3)
    base = table[table["label"] == "base"]
    assert base["difference"].isna().all()
    assert base["mean"].notna().all()


def test_csv_names_the_reference_and_what_simulations_say(full_lab: Lab) -> None:
    table = pd.read_csv(io.StringIO(as_csv(make_report(full_lab.runs, against="dpo"))))
    assert set(table["reference"]) == {"Diffusion-DPO"}
    assert table[table["label"] == "base"]["primary_over_reference"].notna().all()
    missed = make_report(full_lab.runs)
    rates = {(row.label, name): score.win_rate for row in missed.rows for name, score in row.scores.items()}
    found = {key for key, rate in rates.items() if rate and rate.miss}
    wide = pd.read_csv(io.StringIO(as_csv(missed))).set_index(["label", "metric"])["win_rate_miss"].dropna()
    assert set(wide.index) == found
    assert found


def test_json_reads_back_and_carries_no_pictures(full_lab: Lab) -> None:
    report = make_report(full_lab.runs)
    value = json.loads(as_json(report))
    assert value.pop("citation").startswith("bench ")
    assert value.keys() == {field.name for field in dataclasses.fields(report)} - {"source", "places"}
    assert value["metrics"][0] == {
        "name": "gold", "signature": report.metrics[0].signature, "identity": {"version": 1}, "title": "Gold",
        "raw_range": "0 to 1", "unit": "expected utility", "source": "the tiny world", "published": "", "display_factor": 1.0,
        "higher_is_better": True, "conventions": "", "ties": "half",
    }  # fmt: skip
    assert value["rows"][1]["settings"] == {
        "changed": {}, "recipe": None, "algorithm": {"beta": 1000.0}, "training": {"steps": 30, "budget": None, "rounds": None, "labels": "as given"},
        "data": {"source": "votes.parquet", "pairs": 2000, "digest": "d", "labels": "l", "rounds": None, "sampled": False, "fits_judge": False},
        "prompts_in_training": None,
        "limit": None, "code": [CODE] * 3, "harness": [HARNESS] * 3,
    }  # fmt: skip
    assert len(value["rows"][1]["curves"]["loss"]["mean"]) == 30
    assert "base64" not in as_json(report)
    assert value["rows"][3]["scores"]["pickscore"]["trained_on"] is True
    assert value["protocol"]["generation"]["steps"] == 20


def test_markdown_tables_are_rectangular_and_escaped(full_lab: Lab) -> None:
    full_lab.run("odd", title="A|B_c*", shift=0.1)
    text = markdown(make_report(full_lab.runs))
    assert "Distance\\_%" in text
    assert "A\\|B\\_c\\*" in text
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert re.search(r"^\| SmPO \| 1 \|.*†", text, re.MULTILINE)
    assert re.search(r"\d[*]* \([+-]\d", text)  # a score, and the difference behind it
    assert not re.search(r"\d[*]* [+-]\d", text)
    assert f"- protocol {full_lab.protocol.signature}" in text


def test_a_page_of_the_base_alone_has_no_plot(lab: Lab) -> None:
    lab.base()
    text = page(make_report(lab.runs))
    assert "Nothing to compare with the base: no other row has a finished evaluation under this protocol." in text
    assert "No row of this table was trained here." in text
    assert "<svg" not in text


def test_texts_are_no_part_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload='x"
    monkeypatch.setattr("lab.PROMPTS", [evil, *PROMPTS[1:]])
    lab = Lab(tmp_path / "runs")
    fill(lab)
    lab.run("odd", title=evil, name="plain", shift=0.1)
    text = page(make_report(lab.runs))
    tags = Page(text).tags
    assert text.count("alert(1)") >= 4
    assert sum(tag == "script" for tag, _ in tags) == 2
    assert not [attributes for _, attributes in tags if {"onerror", "onload"} & attributes.keys()]


def test_latex_escapes(full_lab: Lab) -> None:
    full_lab.run("odd", title=r"50% & #1_a{b}~^$\x", shift=0.1)
    text = latex(make_report(full_lab.runs))
    assert r"50\% \& \#1\_a\{b\}\textasciitilde{}\textasciicircum{}\$\textbackslash{}x" in text
    assert r"Distance\_\% $\downarrow$" in text
    assert text.isascii()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule") == 7
    for body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in body[1].splitlines():
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(body[0]) - 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(full_lab: Lab, tmp_path: Path) -> None:
    full_lab.run("odd", title=r"50% & #1_a{b}~^$\x <|>", shift=0.1)
    for number in range(38):  # more rows than stand on a page, with names that leave no room for the columns
        full_lab.run(f"more{number}", title=f"A method with a long name, number {number}", shift=-0.4)
    body = latex(make_report(full_lab.runs))
    assert r"$-$" in body
    assert r"\label{tab:bench-win-rates-2}" in body
    packages = "\\documentclass{article}\\usepackage{booktabs,graphicx}"
    (tmp_path / "table.tex").write_text(f"{packages}\\begin{{document}}\n{body}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "too large" not in done.stdout
    assert (tmp_path / "table.pdf").stat().st_size > 1000


def test_terminal(full_lab: Lab) -> None:
    full_lab.run("odd", title="[red]odd[/]", shift=0.1)
    stream = io.StringIO()
    print_report(make_report(full_lab.runs), Console(file=stream, width=160))
    text = stream.getvalue()
    assert "[red]odd[/]" in text
    assert re.search(r"SmPO .*\d†", text)
    assert f"protocol {full_lab.protocol.signature}: tiny" in text


def test_terminal_output_in_a_pipe_is_not_cut(full_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    show_report(make_report(full_lab.runs))
    text = capsys.readouterr().out
    assert "Win rate against the base, %" in text
    assert "…" not in text


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_to_a_file_and_to_the_output(full_lab: Lab, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = make_report(full_lab.runs)
    path = full_lab.runs / "new" / f"report.{name}"
    write_report(report, name, path)
    write_report(report, name, None)
    assert path.read_text(encoding="utf-8") == capsys.readouterr().out == FORMATS[name].render(report)
    assert str(full_lab.runs) not in path.read_text(encoding="utf-8")


def test_a_file_has_the_format_of_its_name(full_lab: Lab, tmp_path: Path) -> None:
    result = report_of(full_lab.runs)
    for end, name in (("html", "html"), ("csv", "csv"), ("md", "markdown"), ("tex", "latex"), ("json", "json")):
        path = tmp_path / f"table.{end}"
        result.save(path)
        assert path.read_text(encoding="utf-8") == FORMATS[name].render(result.report)
    result.save(tmp_path / "table.txt", "markdown")
    assert (tmp_path / "table.txt").read_text(encoding="utf-8") == str(result)
    with pytest.raises(UserError, match=r"'.*table.pdf' must end in .md, .csv"):
        result.save(tmp_path / "table.pdf")


def test_images_without_a_metric_are_shown_in_every_format(lab: Lab) -> None:
    lab.identities = {}
    lab.base()
    lab.run("dpo")
    lab.run("sft", title="SFT", shift=-0.6)
    report = make_report(lab.runs)
    assert report.endpoint is None
    for name, (_, render) in FORMATS.items():
        if name != "csv":
            assert "Diffusion-DPO" in render(report)
    with pytest.raises(UserError, match="these images have no score"):
        as_csv(report)
    parsed = Page(page(report))
    assert sum(tag == "img" and "src" in attributes for tag, attributes in parsed.tags) == 12 * 3
    assert "None" not in page(report)
    print_report(make_report(lab.runs, against="sft"), Console(file=io.StringIO()))


def test_page_is_self_contained_and_accessible(full_lab: Lab) -> None:
    full_lab.run("odd", title="<b>&odd $x$", shift=0.1)
    report = make_report(full_lab.runs)
    text = page(report)
    parsed = Page(text)
    assert parsed.open == []
    assert {"link", "iframe", "b"}.isdisjoint(tag for tag, _ in parsed.tags)
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "srcset", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#")), (tag, name)
        if tag == "img" and "src" in attributes:
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert not re.search(r"url\((?!#)|@import", text)
    buttons = [attributes for tag, attributes in parsed.tags if tag == "button" and attributes.get("data-prompt")]
    assert len(buttons) == 12 * 5 + sum(
        2 * (len(row.won) + len(row.lost)) for row in compare(report.source, report.places).extremes
    )
    assert re.fullmatch(r"SFT: Gold 0\.\d+", str(buttons[3]["data-caption"]))
    assert [tag for tag, _ in parsed.tags].count("svg") == 2


def test_a_title_that_looks_like_markup_is_shown(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", title="ours [ema]")
    lab.run("sft", title="odd [/b]")
    stream = io.StringIO()
    print_report(make_report(lab.runs, against="dpo"), Console(file=stream, width=200))
    assert "Win rate against ours [ema]" in stream.getvalue()
    print_report(make_report(lab.runs, against="sft"), Console(file=stream, width=200))
    assert "Win rate against odd [/b]" in stream.getvalue()


def test_page_without_images_says_so(full_lab: Lab) -> None:
    for images in full_lab.runs.glob("**/images"):
        shutil.rmtree(images)
    text = page(make_report(full_lab.runs))
    assert "data:image" not in text
    assert text.count("The images are not stored here") == 1
    assert "not on disk" not in text


def test_page_without_some_images_says_which(full_lab: Lab) -> None:
    first, *_ = sorted(full_lab.runs.glob("**/images"))
    shutil.rmtree(first)
    text = page(make_report(full_lab.runs))
    assert "not on disk" in text
    assert "The images are not stored here" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_output_that_cannot_show_marks_has_stars(full_lab: Lab, terminal: bool) -> None:
    stream = io.StringIO()
    report = make_report(full_lab.runs)
    marks = re.findall(r"(?<!\*)\*{1,2}[+-]?[\d.]+[†]?\*{1,2}(?!\*)", markdown(report))
    assert marks
    print_report(report, Console(file=stream, width=160, force_terminal=terminal))
    stars = re.findall(r"\d†?\*", stream.getvalue())
    assert len(stars) == (0 if terminal else len(marks))
    assert ("* is bold or italic in a terminal" in stream.getvalue()) != terminal


def test_every_column_is_explained(full_lab: Lab) -> None:
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    rows = [line for line in page.split("\n") if line.startswith("| ")]
    named = {name for line in rows for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    endings = sorted((each for each in named if each.startswith("_")), key=len, reverse=True)
    columns = as_csv(make_report(full_lab.runs)).partition("\n")[0].split(",")
    unknown = [
        each
        for each in columns
        if each not in named and not any(each.removesuffix(end) in named for end in endings if each.endswith(end))
    ]
    assert unknown == []
