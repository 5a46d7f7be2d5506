"""Where the files of packages are, found without importing them, and which packages are not libraries."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, distributions
from pathlib import Path

from bench.core.registry import DISTRIBUTION

OURS = ("bench", "algorithms", "metrics", "reports")
ROOT = Path(__file__).parents[2]
"""The folder that holds our packages, and in an installation all others too."""
LIBRARIES = {"site-packages", "dist-packages"}
"""Folders in which installed libraries are."""


def root(module: str) -> str:
    """The outermost package of a module that is more than a namespace, or the module itself."""
    parts = module.split(".")
    names = [".".join(parts[: place + 1]) for place in range(len(parts))]
    return next(name for name in names if located(name) is not None)


def is_followed(top: str) -> bool:
    """Whether a package is not a library: ours, a plug-in's, or one in a folder where somebody works on it."""
    if top in OURS or top in plugins():
        return True
    if top in sys.stdlib_module_names:
        return False
    spec = _spec(top)
    place = next(iter(_places(spec)), None) if spec is not None else None
    if place is None and spec is not None and spec.origin is not None:
        place = Path(spec.origin)
    return place is not None and not LIBRARIES & set(place.parts) and not any(place.parent.glob("*.dist-info"))


@functools.cache
def plugins() -> Mapping[str, frozenset[str]]:
    """Packages of the distributions that announce parts of ours, by each of their outermost names."""
    found: dict[str, frozenset[str]] = {}
    for distribution in distributions():
        announced = [point.module for point in distribution.entry_points if point.group.startswith("bench.")]
        if announced and distribution.name != DISTRIBUTION:
            named = {*announced, *_top_names(distribution)}
            packages = frozenset(root(name) for name in named if located(name) is not None)
            for name in named:
                top = name.partition(".")[0]
                found[top] = found.get(top, frozenset()) | packages
    return found


def _top_names(distribution: Distribution) -> set[str]:
    """Outermost packages and modules that a distribution installs; of an editable one they may not be listed."""
    named = set((distribution.read_text("top_level.txt") or "").split())
    for file in distribution.files or ():
        if file.suffix == ".py" and ".." not in file.parts:
            named.add(file.parts[0] if len(file.parts) > 1 else file.stem)
    return named


def is_ours(path: Path) -> bool:
    """Whether a file is one of this project's."""
    return ROOT in path.parents and path.relative_to(ROOT).parts[0] in OURS


@functools.cache
def located(module: str) -> Path | None:
    """The Python file of a module, found without importing what holds it; None where there is none."""
    top, *inside = module.split(".")
    spec = _spec(top)
    if spec is None:
        return None
    if not inside:
        return Path(spec.origin) if spec.origin is not None and spec.origin.endswith(".py") else None
    for place in _places(spec):
        whole = place.joinpath(*inside)
        for path in (whole / "__init__.py", whole.with_name(f"{whole.name}.py")):
            if path.is_file():
                return path
    return None


def _places(spec: ModuleSpec) -> list[Path]:
    return [Path(place) for place in spec.submodule_search_locations or ()]


@functools.cache
def _spec(top: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except ValueError:  # what was made while running, such as __main__
        return None
