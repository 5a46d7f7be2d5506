"""What ``bench list`` prints: read from the registries, so that plug-ins show as our own parts do, with their origin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.cli.kinds import KINDS, Kind, fields
from bench.core.errors import UserError, did_you_mean
from bench.core.registry import is_ours, origin
from bench.records.protocol import GenerationSettings
from bench.training.settings import TrainingSettings

FIELDS: Mapping[str, tuple[str, type[BaseModel]]] = {
    "training": ("--set", TrainingSettings),
    "images": ("--image", GenerationSettings),
}
"""What is no registry, but fields of an option; those of images have the model's own values as defaults."""


def show(kind: str | None, *, verbose: bool) -> None:
    """Print what is registered; an entry that cannot be imported is listed with its exception.

    Args:
        kind: one of `KINDS` or of `FIELDS`; None is all of `KINDS`.

    Raises:
        UserError: an unknown kind.
    """
    console = Console()
    if kind is not None and kind in FIELDS:
        option, model = FIELDS[kind]
        console.print(details(kind, fields(model, option)), highlight=False)
        return
    chosen = KINDS if kind is None else {kind: _kind(kind)}
    for title, each in chosen.items():
        console.print(overview(title, each))
        if verbose:
            console.print(each.legend, highlight=False)
            for name in each.entries:
                if each.entries.problem(name) is None:
                    console.print(details(name, each.statements(each.entries.get(name))), "", highlight=False)


def show_entry(kind: str, name: str) -> None:
    """Print everything that one entry states about itself.

    Raises:
        UserError: an unknown kind or name.
    """
    console = Console()
    if kind in FIELDS:
        option, model = FIELDS[kind]
        stated = [each for each in fields(model, option) if each[0] == f"{option} {name}="]
        if not stated:
            known = list(model.model_fields)
            raise UserError(f"{kind} have no field {name!r}: {did_you_mean(name, known)}there are {', '.join(known)}")
        console.print(details(kind, stated), highlight=False)
        return
    found = _kind(kind)
    entry = details(name, found.statements(found.entries.get(name)))
    console.print(found.legend, highlight=False)
    console.print(entry, highlight=False)


def overview(title: str, kind: Kind[Any]) -> Table:
    """One line an entry: name, what it is, and who brings it if it is not we."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("name", "what", "from"):
        table.add_column(column)
    for name in kind.entries:
        problem = kind.entries.problem(name)
        owner = ", ".join(origin(point) for point in kind.entries.candidates(name) if not is_ours(point))
        what = f"broken: {_reason(problem)}" if problem else kind.summary(kind.entries.get(name))
        table.add_row(name, escape(what), owner, style="red" if problem else None)
    return table


def _reason(problem: BaseException) -> str:
    return str(problem) if isinstance(problem, UserError) else f"{type(problem).__name__}: {problem}"


def details(title: str, statements: Iterable[tuple[str, str]]) -> Table:
    """Labels with texts."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, text in statements:
        table.add_row(escape(label), escape(text))
    return table


def _kind(kind: str) -> Kind[Any]:
    if kind not in KINDS:
        for each, found in KINDS.items():
            if kind in found.entries:
                raise UserError(f"{kind!r} is no kind, but one of {each}: bench list {each} {kind}")
        known = [*KINDS, *FIELDS]
        raise UserError(f"unknown kind {kind!r}: {did_you_mean(kind, known)}there are {', '.join(known)}")
    return KINDS[kind]
