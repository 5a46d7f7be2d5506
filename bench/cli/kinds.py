"""The kinds of registered things, and the page that `bench list` shows for an entry of each."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bench.core.registry import Registry
from bench.models.card import ModelCard
from bench.models.family import ModelFamily
from bench.models.registry import FAMILIES, MODELS
from bench.prompts.sets import PROMPT_SETS, PromptSet
from bench.records.protocol import prompts_digest
from bench.records.scores import MetricInfo
from bench.scoring.isolated.environment import Environment
from bench.scoring.isolated.metric import IsolatedMetric
from bench.scoring.metric import METRICS, Metric
from bench.training.algorithm import ALGORITHMS, Algorithm, Need
from bench.training.online import SamplingAlgorithm

E = TypeVar("E")

Statements = list[tuple[str, str]]
"""Labels with texts."""

Page = Mapping[str, Statements]
"""What an entry states about itself, by heading; statements without a heading are under the empty one."""

FACTS = ""
MATERIAL = {Need.PAIRS, Need.IMAGES, Need.PROMPTS, Need.REWARD, Need.REWARD_GRADIENT, Need.FITTED_REWARD}
"""Needs by which algorithms are grouped: what the user must have."""

SYMBOLS: Mapping[str, str] = {
    "Mw": "mean squared denoising error of the policy on the preferred image (winner)",
    "Ml": "the same on the rejected image (loser)",
    "Rw": "mean squared denoising error of the reference on the winner",
    "Rl": "the same on the loser",
    "M": "mean squared denoising error of the policy on one image",
    "R": "mean squared denoising error of the reference on one image",
    "Dw": "Mw - Rw: error of the policy minus error of the reference, on the winner",
    "Dl": "Ml - Rl: the same on the loser",
    "L": "the loss of the algorithm that is wrapped, see objective",
}
"""The symbols that formulas do not define; everything else in them is a field or defined on the spot."""
SAMPLING_SYMBOLS: Mapping[str, str] = {
    "R": "reward of a sample",
    "A": "advantage of a sample",
    "f": "prediction of the policy",
    "g": "prediction of the reference",
    "mu": "mean of a sampling step, mu_ref that of the reference's",
    "std": "standard deviation of a sampling step",
    "ds": "change of the time in it",
}
"""Those of algorithms that sample while they train."""

EXAMPLES = 8
"""How many prompts the page of a local set shows."""

SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclasses.dataclass(frozen=True)
class Kind(Generic[E]):
    """One kind.

    Attributes:
        entries: its registry.
        summary: what an entry is, in one line.
        page: everything an entry states about itself.
        group: what comes after the kind's name in the title of the table that lists an entry; by default nothing.
        also: what else an entry needs, in a column of its own.
    """

    entries: Registry[E]
    summary: Callable[[E], str]
    page: Callable[[E], Page]
    group: Callable[[E], str] = lambda _: ""
    also: Callable[[E], str] = lambda _: ""


def fields(model: type[BaseModel], option: str) -> Statements:
    """The fields of a pydantic model, in the form in which a command-line option takes them."""
    stated = model.model_fields.items()
    return [(f"{option} {name}=", f"{field.description} ({_range(field)})") for name, field in stated]


def _algorithm(entry: type[Algorithm]) -> Page:
    words = re.findall("[A-Za-z]+", entry.info.formula)
    known = SAMPLING_SYMBOLS if issubclass(entry, SamplingAlgorithm) else SYMBOLS
    facts = [
        ("title", entry.info.title),
        ("paper", entry.info.paper),
        ("formula", entry.info.formula),
        ("symbols", "\n".join(f"{symbol:<3} {meaning}" for symbol, meaning in known.items() if symbol in words)),
        ("status", entry.info.status),
        ("needs", ", ".join(sorted(entry.needs))),
        ("placebo", entry.placebo or f"none: {entry.no_placebo}"),
    ]
    recipes = [
        (model, f"{_values({**recipe.algorithm, **recipe.training})}\n{recipe.name}, source: {recipe.source}")
        for model, recipe in entry.recipes.items()
    ]
    return {
        FACTS: [(label, text) for label, text in facts if text],
        "settings": fields(entry, "--set"),
        "recipes, by model": recipes,
    }


def _metric(entry: type[Metric]) -> Page:
    info = entry.info
    facts = [
        ("title", info.title),
        ("source", info.source),
        ("raw range", info.raw_range),
        ("unit", info.unit),
        ("direction", _direction(info)),
        ("factor", f"tables show the raw score x {info.display_factor:g}"),
        ("elsewhere", info.conventions or "-"),
        ("published", info.published or "-"),
    ]
    own = {"its own environment": _environment(entry.environment)} if issubclass(entry, IsolatedMetric) else {}
    return {FACTS: facts, **own}


def _environment(environment: Environment) -> Statements:
    return [
        ("Python", f"{environment.python}, built when it is first used"),
        ("requirements", ", ".join(environment.requirements) or "-"),
        ("without dependencies", ", ".join(environment.unresolved) or "-"),
    ]


def _model(entry: ModelCard) -> Page:
    facts = [
        ("title", entry.title),
        ("source", entry.source),
        ("images", _values(entry.generation.model_dump())),
        ("metrics", ", ".join(entry.metrics)),
        ("note", entry.note or "-"),
    ]
    return {FACTS: facts}


def _prompts(entry: PromptSet) -> Page:
    facts = [
        ("title", entry.title),
        ("source", f"{entry.source}{'' if entry.local else ' on the hub'}: {', '.join(entry.files)}"),
        ("prompts", f"{entry.count}; {entry.note}"),
        ("digest", prompts_digest(list(dict.fromkeys(entry.read()))) if entry.local else "known once downloaded"),
        ("licence", entry.licence),
    ]
    words = [(kind, ", ".join(each)) for kind, each in entry.vocabulary.items()]
    return {FACTS: facts, "vocabulary": words, "some of its prompts": _examples(entry)}


def _examples(entry: PromptSet) -> Statements:
    if not entry.local:
        return []
    return [(str(row), prompt) for row, prompt in enumerate(entry.read()[:EXAMPLES], start=1)]


def _family(entry: type[ModelFamily]) -> Page:
    return {FACTS: [("recipes of", entry.recipe), ("adapters on", ", ".join(entry.lora_targets))]}


def _and(names: Sequence[str]) -> str:
    """Names as a sentence lists them: ``a, b and c``; empty for none."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _direction(info: MetricInfo) -> str:
    return "higher is better" if info.higher_is_better else "lower is better"


def _values(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{field} {'(empty)' if value == '' else value}" for field, value in fields.items())


def _range(field: FieldInfo) -> str:
    """A field's allowed values and its default: ``> 0, default: 2000.0``."""
    limits = [
        f"{sign} {getattr(limit, side):g}"
        for limit in field.metadata
        for side, sign in SIGNS.items()
        if hasattr(limit, side)
    ]
    choices = [" | ".join(map(str, get_args(field.annotation)))] if get_origin(field.annotation) is Literal else []
    default = "none" if field.default in ("", None) else field.default
    return ", ".join([*limits, *choices, f"default: {default}"])


KINDS: Mapping[str, Kind[Any]] = {
    "algorithms": Kind[type[Algorithm]](
        ALGORITHMS,
        lambda entry: f"{entry.info.title}, {entry.info.paper}",
        _algorithm,
        lambda entry: f"that need {_and(sorted(entry.needs & MATERIAL, reverse=True)) or 'no data'}",
        lambda entry: ", ".join(sorted(entry.needs - MATERIAL)),
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
        _family,
    ),
}
