"""A number that two pages show is the same on both, and so are the signatures under which it was measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import DOCS, ROOT

from bench import ALGORITHMS

README, FINDINGS = ROOT / "README.md", DOCS / "findings.md"
METRICS = ("gold", "PickScore", "HPSv2.1", "ImageReward", "Aesthetic")

Table = dict[str, dict[str, str]]


def table(text: str, heading: str) -> Table:
    """The first table below a heading: cells by row and column."""
    lines = text.partition(heading)[2].split("\n")
    begin = next(number for number, line in enumerate(lines) if line.startswith("|"))
    end = next(number for number, line in enumerate(lines) if number > begin and not line.startswith("|"))
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:end]]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def in_readme() -> Table:
    """Win rates in the README by the algorithm's registered name."""
    names = {f"{ALGORITHMS.get(name).info.title} (recipe)": name for name in ALGORITHMS}
    rows = table(README.read_text(encoding="utf-8"), "**Win rate against the base, %**")
    return {names[title]: cells for title, cells in rows.items()}


def in_findings() -> Table:
    """Win rates in the findings by the algorithm's registered name."""
    rows = table(FINDINGS.read_text(encoding="utf-8"), "## The whole table")
    return {name.strip("`"): cells for name, cells in rows.items()}


@pytest.mark.parametrize("metric", METRICS)
def test_the_readme_and_the_findings_show_the_same_win_rates(metric: str) -> None:
    readme, findings = in_readme(), in_findings()
    assert readme
    for algorithm, cells in readme.items():
        assert cells["seeds"] == findings[algorithm]["seeds"]
        # the findings leave out the intervals of the reward models
        assert cells[metric].split(" ")[0] == findings[algorithm][metric].split(" ")[0], algorithm
    assert readme["dpo"]["gold"] == findings["dpo"]["gold"]


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_pages_that_name_a_protocol_or_a_metrics_signature_name_the_readmes(page: Path) -> None:
    readme = README.read_text(encoding="utf-8")
    protocols = set(re.findall(r"^- protocol ([0-9a-f]{12}):", readme, re.MULTILINE))
    signatures = {
        title: re.findall(rf"^- metric sig.*{re.escape(title)} (\w+)", readme, re.MULTILINE) for title in METRICS
    }
    assert len(protocols) == 1
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"[Pp]rotocol ([0-9a-f]{12})\b", text)) <= protocols
    cited = "\n".join(line for line in text.split("\n") if "base-paired" in line)  # as `bench report` ends
    for title, expected in signatures.items():
        assert set(re.findall(rf"{re.escape(title)} ([0-9a-f]{{12}})\b", cited)) <= set(expected), title
