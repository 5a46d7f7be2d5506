"""The kinds of registered things, and what an entry of each states about itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bench.core.registry import Registry
from bench.models.card import ModelCard
from bench.models.family import ModelFamily
from bench.models.registry import FAMILIES, MODELS
from bench.prompts.sets import PROMPT_SETS, PromptSet
from bench.records.scores import MetricInfo
from bench.scoring.isolated.environment import Environment
from bench.scoring.isolated.metric import IsolatedMetric
from bench.scoring.metric import METRICS, Metric
from bench.training.algorithm import ALGORITHMS, Algorithm

E = TypeVar("E")

Statements = list[tuple[str, str]]
"""Labels with texts."""

SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclasses.dataclass(frozen=True)
class Kind(Generic[E]):
    """One kind.

    Attributes:
        entries: its registry.
        summary: what an entry is, in one line.
        statements: everything it states about itself.
        legend: what a reader of the statements must know.
    """

    entries: Registry[E]
    summary: Callable[[E], str]
    statements: Callable[[E], Statements]
    legend: str = ""


def fields(model: type[BaseModel], option: str) -> Statements:
    """The fields of a model, as an option of the command line takes them."""
    stated = model.model_fields.items()
    return [(f"{option} {name}=", f"{field.description} ({_range(field)})") for name, field in stated]


def _algorithm(entry: type[Algorithm]) -> Statements:
    recipes = [
        (f"{recipe.name} {model}", f"{_values({**recipe.algorithm, **recipe.training})}\nsource: {recipe.source}")
        for model, recipe in entry.recipes.items()
    ]
    return [
        ("paper", entry.info.paper),
        ("formula", entry.info.formula),
        ("status", entry.info.status),
        ("needs", ", ".join(sorted(entry.needs))),
        *fields(entry, "--set"),
        *recipes,
    ]


def _metric(entry: type[Metric]) -> Statements:
    info = entry.info
    return [
        ("source", info.source),
        ("raw range", info.raw_range),
        ("unit", info.unit),
        ("direction", _direction(info)),
        ("factor", f"tables show the raw score x {info.display_factor:g}"),
        ("elsewhere", info.conventions or "-"),
        ("published", info.published or "-"),
        *(_environment(entry.environment) if issubclass(entry, IsolatedMetric) else ()),
    ]


def _environment(environment: Environment) -> Statements:
    return [
        ("environment", f"one of its own, Python {environment.python}, built when it is first used"),
        ("requirements", ", ".join(environment.requirements) or "-"),
        ("without theirs", ", ".join(environment.unresolved) or "-"),
    ]


def _model(entry: ModelCard) -> Statements:
    return [
        ("source", entry.source),
        ("images", _values(entry.generation.model_dump())),
        ("metrics", ", ".join(entry.metrics)),
    ]


def _prompts(entry: PromptSet) -> Statements:
    return [
        ("source", f"{entry.source} on the hub: {', '.join(entry.files)}"),
        ("prompts", f"{entry.count}; {entry.note}"),
        (
            "digest",
            "every protocol signature holds the digest of the prompts in their order; another count is an error",
        ),
        ("licence", entry.licence),
    ]


def _direction(info: MetricInfo) -> str:
    return "higher is better" if info.higher_is_better else "lower is better"


def _values(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{field} {'(empty)' if value == '' else value}" for field, value in fields.items())


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


KINDS: Mapping[str, Kind[Any]] = {
    "algorithms": Kind[type[Algorithm]](
        ALGORITHMS,
        lambda entry: f"{entry.info.title}, {entry.info.paper}; needs {', '.join(sorted(entry.needs))}",
        _algorithm,
        "In formulas, f and g are the predictions of policy and reference, M and R their mean squared denoising errors, w and l "
        "winner and loser.",
    ),
    "metrics": Kind[type[Metric]](
        METRICS,
        lambda entry: f"{entry.info.title}, {entry.info.unit}, raw {entry.info.raw_range}, {_direction(entry.info)}",
        _metric,
    ),
    "models": Kind[ModelCard](MODELS, lambda entry: f"{entry.title}: {entry.note}", _model),
    "prompts": Kind[PromptSet](
        PROMPT_SETS,
        lambda entry: f"{entry.title}: {entry.count} prompts, licence: {entry.licence}",
        _prompts,
    ),
    "families": Kind[type[ModelFamily]](
        FAMILIES,
        lambda entry: (entry.__doc__ or "").partition("\n")[0].replace("``", ""),
        lambda entry: [("recipes of", entry.recipe), ("adapters on", ", ".join(entry.lora_targets))],
    ),
}
