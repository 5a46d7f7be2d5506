"""constraints.txt names a version of everything that pyproject.toml asks for and tox installs, and none that it does not admit.

Whether the extras' own requirements fit too, only PyPI knows: tests/house/extras.py.
"""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"(?P<name>[a-z0-9-]+)(?:==(?P<pin>[\w.]+)|>=(?P<low>[\w.]+),<=(?P<high>[\w.]+))")


def constrained() -> dict[str, list[Version]]:
    """A version by name, or both ends of a range."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = {line: LINE.fullmatch(line) for line in lines if not line.startswith("#")}
    assert not [line for line, match in found.items() if match is None]
    return {match["name"]: [Version(end) for end in match.groups()[1:] if end] for match in found.values() if match}


def test_what_is_asked_for_has_a_version_that_is_admitted() -> None:
    versions = constrained()
    assert versions["pillow"][0] < versions["pillow"][1]
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = about["project"]
    groups = chain.from_iterable(about["dependency-groups"].values())
    installed = [*about["build-system"]["requires"], *project["dependencies"], *groups]
    extras = list(chain.from_iterable(project["optional-dependencies"].values()))
    for text in (*installed, *extras):
        wanted = Requirement(text)
        ends = versions.get(canonicalize_name(wanted.name), [])
        assert ends or text in extras, f"constraints.txt says nothing about {wanted.name}"
        assert all(map(wanted.specifier.contains, ends)), f"{text} does not admit the version in constraints.txt"
