"""The tables of the README and of the findings are those of one report, which is kept beside the pages as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, ROOT

README, FINDINGS = ROOT / "README.md", DOCS / "findings.md"
REPORT: dict[str, Any] = json.loads((DOCS / "readme-study.json").read_text(encoding="utf-8"))
ROWS = {row["label"]: row for row in REPORT["rows"]}
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
    assert len(shown) == len(REPORT["rows"]) - 1
    for cells in shown:
        row = ROWS[cells[""]]
        assert int(cells["seeds"]) == len(row["seeds"])
        for title, name in METRICS.items():
            assert numbers(cells[title]) == pytest.approx(in_percent(row["scores"][name]["win_rate"]), abs=0.051)
            assert ("†" in cells[title]) == row["scores"][name]["trained_on"]


def test_the_readmes_costs() -> None:
    for cells in tables(README, "Cost of one training run"):
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


def test_the_findings_ranks() -> None:
    for cells in tables(FINDINGS, "Primary endpoint, gold: win rate, %"):
        row = ROWS[cells[""]]
        assert numbers(cells["over base"]) == pytest.approx(in_percent(row["scores"]["gold"]["win_rate"]), abs=0.051)
        assert cells["group"] == row["standing"]["groups"]


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_pages_that_name_a_protocol_or_a_metrics_signature_name_the_reports(page: Path) -> None:
    signatures = {metric["title"]: metric["signature"] for metric in REPORT["metrics"]}
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"[Pp]rotocol ([0-9a-f]{12})\b", text)) <= {REPORT["signature"]}
    cited = "\n".join(line for line in text.split("\n") if "base-paired" in line)  # as `bench report` ends
    for title, expected in signatures.items():
        assert set(re.findall(rf"{re.escape(title)} ([0-9a-f]{{12}})\b", cited)) <= {expected}, title
