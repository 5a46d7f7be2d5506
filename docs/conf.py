"""How Sphinx builds the documentation: ``tox run -e docs``.

Three pages are made from the code at every build: the public names of `bench`, the commands of its command line, and where the
settings of published recipes are from.
"""

from __future__ import annotations

import enum
import importlib.metadata
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer

import bench

DOCS = Path(__file__).parent
GENERATED = DOCS / "generated"

project = "bench"
version = release = importlib.metadata.version("diffusion-alignment-bench")
author = "The bench authors"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"bench {release}"
html_copy_source = False
html_show_sphinx = False

default_role = "code"  # docstrings name code in single backticks
autodoc_default_options = {"members": True, "member-order": "bysource", "exclude-members": "model_config"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # dataclasses describe their fields in the docstring of the class

STAGES = {
    "experiments": "Runs and evaluations",
    "reports": "Reports",
    "training": "Algorithms",
    "rollouts": "Rollouts",
    "data": "Preference data",
    "scoring": "Metrics",
    "models": "Models",
    "prompts": "Prompt sets",
    "records": "Records",
    "core": "Helpers",
}
"""Headings of the Python reference by the stage, or other package, that defines a name, in their order."""

EXTERNAL = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["'](?:https?:)?//|<link[^>]*\shref=["'](?:https?:)?//|@import|url\(["']?(?:https?:)?//"""
)
"""What makes a browser load something from elsewhere; a link that a reader may follow does not."""


def python_reference() -> str:
    """The public names of `bench`, as reStructuredText for autodoc."""
    names: dict[str, list[str]] = {}
    for name in bench.__all__:
        package, stage, *_ = _module(name).split(".")
        names.setdefault(stage if package == "bench" else package, []).append(name)
    lines = ["Python reference", "================", "", inspect.cleandoc(bench.__doc__ or ""), ""]
    for stage in sorted(names, key=list(STAGES).index):
        lines += [STAGES[stage], "-" * len(STAGES[stage]), ""]
        for name in sorted(names[stage], key=str.lower):
            lines += [*_entry(name), ""]
    return "\n".join(lines)


def command_reference() -> str:
    """The commands with their options, as Markdown that typer makes of the help texts."""
    typer = [sys.executable, "-m", "typer", "bench.cli.main", "utils", "docs", "--name", "bench"]
    text = subprocess.run(typer, capture_output=True, text=True, check=True).stdout
    return text.replace("# `bench`\n", "# Command line\n", 1)


def write_generated_pages(_: Sphinx) -> None:
    """Make the pages that come from the code."""
    GENERATED.mkdir(exist_ok=True)
    (GENERATED / "python.rst").write_text(python_reference(), encoding="utf-8")
    (GENERATED / "commands.md").write_text(command_reference(), encoding="utf-8")
    (GENERATED / "sources.md").write_text(
        runpy.run_path(str(DOCS / "algorithm_tables.py"))["sources_page"](), encoding="utf-8"
    )


def add_fields(_: Sphinx, what: str, __: str, value: Any, ___: Any, lines: list[str]) -> None:
    """Describe the fields of a pydantic model with their defaults, as ``bench list`` does."""
    if what != "class" or not issubclass(value, BaseModel):
        return
    for name, field in value.model_fields.items():
        default = "" if field.is_required() else f" (default ``{field.default!r}``)"
        lines += ["", f":ivar {name}: {field.description or ''}{default}"]


def hide_fields(_: Sphinx, what: str, __: str, value: Any, ___: Any, ____: str, _____: str) -> tuple[str, str] | None:
    """Leave out the signature of a pydantic model, which repeats its fields with all their constraints."""
    return ("", "") if what == "class" and issubclass(value, BaseModel) else None


def refuse_external_files(app: Sphinx, error: Exception | None) -> None:
    """A reader's browser must load nothing from other hosts."""
    if error is None:
        for path in sorted(Path(app.outdir).rglob("*")):
            if path.suffix in (".html", ".css") and (found := EXTERNAL.search(path.read_text(encoding="utf-8"))):
                raise ExtensionError(f"{path.relative_to(app.outdir)} loads a file from another host: {found[0]}")


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("builder-inited", write_generated_pages)
    app.connect("autodoc-process-docstring", add_fields)
    app.connect("autodoc-process-signature", hide_fields)
    app.connect("build-finished", refuse_external_files)


def _module(name: str) -> str:
    """The module that defines a public name."""
    return bench._MODULE_OF[name]


def _entry(name: str) -> list[str]:
    value = getattr(bench, name)
    if inspect.isclass(value):
        members = ["   :undoc-members:"] if issubclass(value, enum.Enum) else []
        return [f".. autoclass:: bench.{name}", *members]
    if inspect.isfunction(value):
        return [f".. autofunction:: bench.{name}"]
    described = ModuleAnalyzer.for_module(_module(name)).find_attr_docs().get(("", name), [])
    return [f".. py:data:: bench.{name}", "", *(f"   {line}" for line in described)]
