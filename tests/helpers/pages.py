"""Code blocks of Markdown pages, and plug-ins built from them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FILE = re.compile(r"# (my_package/\w+\.py)\n")
"""The first line of a block that is a whole file."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def files(page: Path) -> dict[str, str]:
    """The blocks that are complete files, by path."""
    return {named[1]: text for text in blocks(page, "python") if (named := FILE.match(text))}


def install(folder: Path, modules: Mapping[str, str], tables: Sequence[str]) -> None:
    """Lay out a distribution as pip installs it, for a process that has ``folder`` on its path.

    Args:
        modules: source by path.
        tables: parts of a ``pyproject.toml`` with entry points.
    """
    for path, source in {"my_package/__init__.py": "", **modules}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(source, encoding="utf-8")
    lines = []
    for table in tables:
        for group, points in tomllib.loads(table)["project"]["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    facts = folder / "my_package-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
