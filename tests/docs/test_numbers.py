"""The tables of the README and of the pages are those of one report, which is kept beside the pages as JSON, with the runs it is of."""

from __future__ import annotations

import json
import lzma
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
from pages import DOCS, ROOT

README, FINDINGS, PLACEBO = ROOT / "README.md", DOCS / "findings.md", DOCS / "placebo.md"
REPORT: dict[str, Any] = json.loads((DOCS / "readme-study.json").read_text(encoding="utf-8"))
ROWS = {row["label"]: row for row in REPORT["rows"]}
TRAINED = [row["label"] for row in REPORT["rows"][1:]]
METHODS = [label for label in TRAINED if ROWS[label]["placebo_of"] is None]
METRICS = {metric["title"]: metric["name"] for metric in REPORT["metrics"]}
COSTS = ("pairs", "policy_forwards", "policy_backwards", "reference_forwards")


def tables(page: Path, heading: str) -> Iterator[dict[str, Any]]:
    """The rows of the table below a heading, cells by column; the label is in ``""``."""
    lines = page.read_text(encoding="utf-8").partition(f"**{heading}**")[2].split("\n")
    begin = next(number for number, line in enumerate(lines) if line.startswith("|"))
    end = next(number for number, line in enumerate(lines) if number > begin and not line.startswith("|"))
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:end]]
    for row in rows:
        yield dict(zip(head, row, strict=True))


def numbers(cell: str) -> list[float]:
    return [float(each.replace(",", "")) for each in re.findall(r"[+-]?[\d.,]*\d", cell)]


def in_percent(rate: dict[str, float]) -> list[float]:
    """A share and its interval as tables show them."""
    return [round(100 * rate[name], 1) for name in ("mean", "low", "high")]


def test_the_readmes_win_rates() -> None:
    shown = list(tables(README, "Win rate against the base, %"))
    assert [cells[""] for cells in shown] == METHODS
    for cells in shown:
        row = ROWS[cells[""]]
        assert int(cells["seeds"]) == len(row["seeds"])
        for title, name in METRICS.items():
            assert numbers(cells[title]) == pytest.approx(in_percent(row["scores"][name]["win_rate"]), abs=0.051)
            assert ("†" in cells[title]) == row["scores"][name]["trained_on"]


def test_the_readmes_costs() -> None:
    shown = list(tables(README, "Cost of one training run"))
    assert [cells[""] for cells in shown] == METHODS
    for cells in shown:
        cost = ROWS[cells[""]]["cost"]
        for name in COSTS:
            assert numbers(cells[name.replace("_", " ")]) == [round(cost[name])]


def test_the_findings_scores() -> None:
    shown = list(tables(FINDINGS, "Score, and its difference from the base"))
    assert len(shown) == len(REPORT["rows"])
    for cells in shown:
        for title, name in METRICS.items():
            score = ROWS[cells[""]]["scores"][name]
            mean, *difference = numbers(cells[title])
            assert mean == pytest.approx(score["mean"], abs=0.0051)
            if score["difference"] is not None:
                middle, high = score["difference"]["mean"], score["difference"]["high"]
                assert difference == pytest.approx([middle, high - middle], abs=0.0051)


@pytest.mark.parametrize("page", [README, FINDINGS, PLACEBO], ids=lambda page: page.name)
def test_what_training_did_and_what_preferences_did(page: Path) -> None:
    shown = list(tables(page, "Primary endpoint, gold: win rate, %"))
    assert [cells[""] for cells in shown] == TRAINED
    for cells in shown:
        row = ROWS[cells[""]]
        assert numbers(cells["over base"]) == pytest.approx(in_percent(row["scores"]["gold"]["win_rate"]), abs=0.051)
        if row["placebo_of"] is None:
            assert numbers(cells["over placebo"]) == pytest.approx(in_percent(row["over_placebo"]), abs=0.051)
            assert cells["group"] == row["standing"]["groups"]


def bench(folder: Path, *words: str) -> str:
    """What a command prints."""
    done = forked.run(words, folder, os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_runs_of_the_tables_are_an_archive_whose_tables_come_out_again(tmp_path: Path) -> None:
    (tmp_path / "study.tar").write_bytes(lzma.decompress((DOCS / "readme-study.tar.xz").read_bytes()))
    bench(tmp_path, "verify", "study.tar", "--output", "study")
    made = json.loads(bench(tmp_path, "report", "--runs", "study/runs", "--format", "json"))
    assert made["citation"].partition(" | ")[2] == REPORT["citation"].partition(" | ")[2]  # the version goes on
    assert [row["label"] for row in made["rows"]] == [row["label"] for row in REPORT["rows"]]
    for row in made["rows"]:
        for name, score in row["scores"].items():
            expected = ROWS[row["label"]]["scores"][name]
            assert score["mean"] == pytest.approx(expected["mean"], rel=1e-9)
            assert score["win_rate"] is None or score["win_rate"]["low"] == pytest.approx(
                expected["win_rate"]["low"], rel=1e-6
            )


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_pages_that_name_a_protocol_or_a_metrics_signature_name_the_reports(page: Path) -> None:
    signatures = {metric["title"]: metric["signature"] for metric in REPORT["metrics"]}
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"[Pp]rotocol ([0-9a-f]{12})\b", text)) <= {REPORT["signature"]}
    cited = "\n".join(line for line in text.split("\n") if "-paired 95 %" in line)  # as `bench report` ends
    for title, expected in signatures.items():
        assert set(re.findall(rf"{re.escape(title)} ([0-9a-f]{{12}})\b", cited)) <= {expected}, title
