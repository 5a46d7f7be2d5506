"""What ``bench list`` prints: read from the registries, so that plug-ins show as our own parts do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import registry
from bench.algorithm import Algorithm
from bench.errors import UserError
from bench.isolated.environment import Environment
from bench.isolated.metric import IsolatedMetric
from bench.metric import Metric, MetricInfo
from bench.models.card import ModelCard
from bench.models.family import ModelFamily
from bench.prompt_sets import DIGEST_POLICY, PromptSet
from bench.registry import Registry, nearest, origin

REGISTRIES: dict[str, Registry[Any]] = {
    "algorithms": registry.algorithms,
    "metrics": registry.metrics,
    "models": registry.models,
    "prompts": registry.prompts,
    "families": registry.families,
}


Entry = type[Algorithm | Metric | ModelFamily] | ModelCard | PromptSet

LEGEND = {
    "algorithms": "In formulas, f and g are the predictions of policy and reference, M and R their mean squared denoising errors, "
    "w and l winner and loser."
}
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def show_entry(kind: str, name: str) -> None:
    """Print everything that one entry states about itself.

    Raises:
        UserError: an unknown kind or name.
    """
    console = Console()
    entries = _entries(kind)
    console.print(LEGEND.get(kind, ""), highlight=False)
    console.print(details(name, entries), highlight=False)


def _entries(kind: str) -> Registry[Any]:
    if kind not in REGISTRIES:
        raise UserError(f"unknown kind {kind!r}: {nearest(kind, REGISTRIES)}there are {', '.join(REGISTRIES)}")
    return REGISTRIES[kind]


def show(kind: str | None, *, verbose: bool) -> None:
    """Print what is registered; an entry that cannot be imported is listed with its exception.

    Raises:
        UserError: an unknown kind.
    """
    if kind is not None:
        _entries(kind)
    console = Console()
    for name, entries in REGISTRIES.items():
        if kind in (None, name):
            console.print(overview(name, entries))
            if verbose:
                console.print(LEGEND.get(name, ""), highlight=False)
                for each in entries:
                    if entries.problem(each) is None:
                        console.print(details(each, entries), "", highlight=False)


def overview(title: str, entries: Registry[Any]) -> Table:
    """One line an entry: name, what it is, who brings it."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("name", "what", "from"):
        table.add_column(column)
    for name in entries:
        problem = entries.problem(name)
        owner = ", ".join(origin(point) for point in entries.candidates(name))
        what = f"broken: {type(problem).__name__}: {problem}" if problem else summary(entries.get(name))
        table.add_row(name, escape(what), owner, style="red" if problem else None)
    return table


def summary(entry: Entry) -> str:
    """What an entry is, in one line."""
    if isinstance(entry, PromptSet):
        return f"{entry.title}: {entry.count} prompts, licence: {entry.licence}"
    if isinstance(entry, ModelCard):
        return f"{entry.title}: {entry.note}"
    if issubclass(entry, Algorithm):
        return f"{entry.info.title}, {entry.info.paper}; needs {', '.join(sorted(entry.needs))}"
    if issubclass(entry, ModelFamily):
        return (entry.__doc__ or "").partition("\n")[0].replace("``", "")
    return f"{entry.info.title}, {entry.info.unit}, raw {entry.info.raw_range}, {direction(entry.info)}"


def direction(info: MetricInfo) -> str:
    """Which scores are good, in words."""
    return "higher is better" if info.higher_is_better else "lower is better"


def details(name: str, entries: Registry[Any]) -> Table:
    """Everything an entry states about itself."""
    table = Table(title=name, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, text in statements(entries.get(name)):
        table.add_row(escape(label), escape(text))
    return table


def statements(entry: Entry) -> list[tuple[str, str]]:
    """What an entry states about itself, as labels with texts."""
    if isinstance(entry, PromptSet):
        return [
            ("source", f"{entry.source} on the hub: {', '.join(entry.files)}"),
            ("prompts", f"{entry.count}; {entry.note}"),
            ("digest", DIGEST_POLICY),
            ("licence", entry.licence),
        ]
    if isinstance(entry, ModelCard):
        return [
            ("source", entry.source),
            ("images", _values(entry.generation.model_dump())),
            ("metrics", ", ".join(entry.metrics)),
        ]
    if issubclass(entry, Algorithm):
        return [
            ("paper", entry.info.paper),
            ("formula", entry.info.formula),
            ("status", entry.info.status),
            ("needs", ", ".join(sorted(entry.needs))),
            *(
                (f"--set {field}=", f"{about.description} ({_range(about)})")
                for field, about in entry.model_fields.items()
            ),
            *(
                (
                    f"{recipe.name} {model}",
                    f"{_values({**recipe.algorithm, **recipe.training})}\nsource: {recipe.source}",
                )
                for model, recipe in entry.recipes.items()
            ),
        ]
    if issubclass(entry, ModelFamily):
        return [("recipes of", entry.recipe), ("adapters on", ", ".join(entry.lora_targets))]
    info = entry.info
    return [
        ("source", info.source),
        ("raw range", info.raw_range),
        ("unit", info.unit),
        ("direction", direction(info)),
        ("factor", f"tables show the raw score x {info.display_factor:g}"),
        ("elsewhere", info.conventions or "-"),
        ("published", info.published or "-"),
        *(_environment(entry.environment) if issubclass(entry, IsolatedMetric) else ()),
    ]


def _environment(environment: Environment) -> list[tuple[str, str]]:
    return [
        ("environment", f"one of its own, Python {environment.python}, built when it is first used"),
        ("requirements", ", ".join(environment.requirements) or "-"),
        ("without theirs", ", ".join(environment.unresolved) or "-"),
    ]


def _values(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{field} {value}" for field, value in fields.items())


def _range(field: FieldInfo) -> str:
    """What a field may be, and its default: ``> 0, default 2000.0``."""
    limits = [
        f"{sign} {getattr(limit, side):g}"
        for limit in field.metadata
        for side, sign in SIGNS.items()
        if hasattr(limit, side)
    ]
    choices = [" | ".join(map(str, get_args(field.annotation)))] if get_origin(field.annotation) is Literal else []
    return ", ".join([*limits, *choices, f"default {field.default}"])
