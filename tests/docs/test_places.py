"""Files and modules that the pages name exist."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from pages import DOCS, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FILE = re.compile(r"`((?:bench|algorithms|metrics|reports|tests|docs)/[\w./-]*)`")
LINK = re.compile(r"\]\(([\w./-]+\.(?:md|png))(?:#[\w-]+)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_and_linked_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []
    assert [name for name in LINK.findall(text) if not (page.parent / name).exists()] == []


def test_the_readme_links_every_page_and_counts_the_algorithms() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {f"docs/{path.name}" for path in DOCS.glob("*.md")} - {"docs/index.md"}  # the contents of the site
    assert pages <= set(LINK.findall(text))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shipped = project["entry-points"]["bench.algorithms"]
    for page in (ROOT / "README.md", DOCS / "index.md"):
        assert f"{len(shipped)} algorithms" in page.read_text(encoding="utf-8")


def test_modules_that_the_changelog_sends_people_to_exist() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    moved = text.partition("### Moved modules")[2].partition("\n## ")[0]
    modules = re.findall(r"^\| `[\w.]+` \| `([\w.]+)` \|$", moved, re.MULTILINE)
    assert len(modules) > 80
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_the_stages_of_the_contributing_page_are_the_folders() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| stage | contract |")[2].partition("\n\n")[0]
    folders = {path.parent.name for path in (ROOT / "bench").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == folders
