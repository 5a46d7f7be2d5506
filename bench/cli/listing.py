"""What ``bench list`` prints, read from the registries: plug-ins appear like built-in parts, with their origin."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from bench.cli.kinds import FACTS, KINDS, Kind, Page, fields
from bench.core.errors import UserError, did_you_mean, nearest_or_all
from bench.core.registry import is_ours, origin
from bench.core.terminal import Terminal
from bench.models.find import find_model
from bench.records.protocol import GenerationSettings
from bench.training.settings import TrainingSettings

FIELDS: Mapping[str, tuple[str, type[BaseModel]]] = {
    "training": ("--set", TrainingSettings),
    "images": ("--image", GenerationSettings),
}
"""Kinds that are not registries but the fields of an option; for images, the real defaults are the model's own."""

DEFAULTS = {
    "training": "A default holds where an algorithm's recipe for the model says nothing: bench list algorithms NAME",
    "images": "A default holds where the model says nothing: bench list models NAME",
}
"""What the defaults of `FIELDS` give way to."""

_ONE = {kind: f"{'an' if each.entries.kind[0] in 'aeiou' else 'a'} {each.entries.kind}" for kind, each in KINDS.items()}
"""The name of a kind in the singular, with its article."""


def show(kind: str | None, *, verbose: bool) -> None:
    """Print what is registered; an entry that cannot be imported is listed with its exception.

    Args:
        kind: one of `KINDS` or `FIELDS`; None means all of `KINDS`.
        verbose: print the page of every entry instead: hundreds of lines, so on a terminal they go through a pager.

    Raises:
        UserError: an unknown kind.
    """
    console = Terminal()
    if kind is not None and kind in FIELDS:
        option, model = FIELDS[kind]
        console.print(page(kind, {FACTS: fields(model, option)}), highlight=False)
        console.print(DEFAULTS[kind], highlight=False, markup=False)
        return
    chosen = KINDS if kind is None else {kind: _kind(kind)}
    with console.pager() if verbose and console.is_terminal else contextlib.nullcontext():
        for title, each in chosen.items():
            if verbose:
                _print_pages(console, each)
            else:
                for table in overview(title, each):
                    console.print(table, "")
    if not verbose:
        first = next(iter(chosen))
        example = next(iter(chosen[first].entries), "NAME")
        console.print(f"More about one entry: bench list {first} {example}", highlight=False, markup=False)


def _print_pages(console: Console, kind: Kind[Any]) -> None:
    for name in kind.entries:
        if kind.entries.problem(name) is None:
            console.print(page(name, kind.page(kind.entries.get(name))), "", highlight=False)


def show_entry(kind: str, name: str) -> None:
    """Print everything that one entry states about itself; a model may also be a diffusers folder.

    Raises:
        UserError: an unknown kind or name.
    """
    console = Terminal()
    if kind in FIELDS:
        option, model = FIELDS[kind]
        stated = [each for each in fields(model, option) if each[0] == f"{option} {name}="]
        if not stated:
            known = list(model.model_fields)
            raise UserError(f"{kind} have no field {name!r}: {nearest_or_all(name, known)}")
        console.print(page(kind, {FACTS: stated}), highlight=False)
        return
    found = _kind(kind)
    entry = find_model(name).card if kind == "models" and Path(name).is_dir() else found.entries.get(name)
    console.print(page(name, found.page(entry)), highlight=False)


def overview(title: str, kind: Kind[Any]) -> list[Table]:
    """A table per group, with one line per entry: name, what it is, what else it needs, and, of a plug-in, the package that it comes from."""
    tables = []
    for group, names in _groups(kind).items():
        heading = f"{title} {group}".strip()
        table = Table(
            title=heading, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False
        )
        also = {name: kind.also(kind.entries.get(name)) for name in names if kind.entries.problem(name) is None}
        extra = ["also needs"] if any(also.values()) else []
        for column in ("name", "what", *extra, "from"):
            table.add_column(column)
        for name in names:
            problem = kind.entries.problem(name)
            owner = ", ".join(origin(point) for point in kind.entries.candidates(name) if not is_ours(point))
            what = f"broken: {_reason(problem)}" if problem else kind.summary(kind.entries.get(name))
            needed = [escape(also.get(name, ""))] if extra else []
            table.add_row(name, escape(what), *needed, owner, style="red" if problem else None)
        tables.append(table)
    return tables


def _groups(kind: Kind[Any]) -> dict[str, list[str]]:
    """Names of the entries by group, in the order of the registry; those that cannot be imported are in the nameless one."""
    found: dict[str, list[str]] = {}
    for name in kind.entries:
        broken = kind.entries.problem(name) is not None
        found.setdefault("" if broken else kind.group(kind.entries.get(name)), []).append(name)
    return found


def _reason(problem: BaseException) -> str:
    return str(problem) if isinstance(problem, UserError) else f"{type(problem).__name__}: {problem}"


def page(title: str, sections: Page) -> RenderableType:
    """An entry's page: its name, and every heading with its statements."""
    parts: list[RenderableType] = [f"[bold]{escape(title)}[/]"]
    for heading, statements in sections.items():
        if statements:
            parts += [f"\n[bold]{escape(heading)}[/]"] if heading else []
            parts.append(_details(statements))
    return Group(*parts)


def _details(statements: Iterable[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, text in statements:
        table.add_row(escape(label), escape(text))
    return table


def _kind(kind: str) -> Kind[Any]:
    if kind not in KINDS:
        if found := [each for each, registered in KINDS.items() if kind in registered.entries]:
            what = " and ".join(_ONE[each] for each in found)
            raise UserError(f"{kind!r} is {what}. Try: {' or '.join(f'bench list {each} {kind}' for each in found)}")
        known = [*KINDS, *FIELDS]
        raise UserError(f"unknown kind {kind!r}: {did_you_mean(kind, known)}there are {', '.join(known)}")
    return KINDS[kind]
