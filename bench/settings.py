"""From what was typed to typed settings: recipes, overrides, and refusals by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bench import registry
from bench.algorithm import RECIPE, Algorithm, Recipe, TrainingSettings
from bench.errors import UserError
from bench.protocol import digest
from bench.registry import nearest

S = TypeVar("S", bound=BaseModel)


def parse_overrides(typed: Sequence[str], *, option: str = "--set", example: str = "beta=2000") -> dict[str, str]:
    """``["beta=2000", "steps=50"]`` as a dict.

    Args:
        typed: what was given to the option, item by item.
        option: its name, for messages.
        example: an item, for messages.

    Raises:
        UserError: an item is no ``field=value``, or a field comes twice.
    """
    overrides: dict[str, str] = {}
    for item in typed:
        field, equals, value = item.partition("=")
        if not equals or not field or not value:
            raise UserError(f"{option} {item!r} is not of the form field=value, for example {option} {example}")
        if field in overrides:
            raise UserError(f"{option} {field} is given twice; give it once")
        overrides[field] = value
    return overrides


def split_names(typed: str) -> list[str]:
    """``"dpo, smpo"`` as a list, repeats left out."""
    return list(dict.fromkeys(part.strip() for part in typed.split(",") if part.strip()))


def algorithm_names(typed: str) -> list[str]:
    """The algorithms of ``--algo``: names separated by commas, or ``all``.

    Raises:
        UserError: there is none.
    """
    names = list(registry.algorithms) if typed == "all" else split_names(typed)
    if not names:
        raise UserError(f"name the algorithms: --algo all, or some of {', '.join(registry.algorithms)}")
    return names


def recipe_of(algorithm: type[Algorithm], model: str) -> Recipe:
    """The algorithm's recipe for a model; without one, an empty recipe that leaves all fields at their defaults."""
    return algorithm.recipes.get(model, Recipe(source="the fields' defaults", name="defaults"))


def resolve(
    name: str, algorithm: type[Algorithm], model: str, overrides: Mapping[str, str]
) -> tuple[Algorithm, TrainingSettings]:
    """The algorithm's recipe for a model, with overrides; without a recipe, the fields' defaults.

    Raises:
        UserError: an unknown field (with the nearest names) or a value that is not allowed.
    """
    recipe = recipe_of(algorithm, model)
    fields, training = set(algorithm.model_fields), set(TrainingSettings.model_fields)
    for field in (typed.partition(".")[0] for typed in overrides):
        if field not in fields | training:
            known = sorted(fields | training)
            raise UserError(
                f"{name} has no field {field!r}: {nearest(field, known)}there are {', '.join(known)} "
                "(--set is for every algorithm of the command)"
            )
    if "steps" in overrides and any(typed.startswith("budget.") for typed in overrides):
        raise UserError("--set steps and --budget both say when training ends; give one of them")
    mine, runs = dict(recipe.algorithm), dict(recipe.training)
    for typed, value in overrides.items():
        field, dot, part = typed.partition(".")
        target: dict[str, Any] = mine if field in fields else runs
        whole = target.get(field)
        target[field] = {**(whole if isinstance(whole, Mapping) else {}), part: value} if dot else value
    return build(algorithm, mine, name), build(TrainingSettings, runs, name)


def without_recipe(name: str, algorithm: type[Algorithm], model: str, settings: TrainingSettings) -> str | None:
    """A sentence for who runs an algorithm on a model that it has no tried recipe for; None where it has one."""
    recipe = recipe_of(algorithm, model)
    if recipe.name == RECIPE:
        return None
    if model in algorithm.recipes:
        return f"{name} has no tried recipe for {model}: {recipe.source}"
    have = ", ".join(algorithm.recipes) or "no model"
    return (
        f"{name} has no recipe for {model} (it has for {have}): fields that --set does not give have their defaults, "
        f"here {settings.steps} steps of {settings.batch} pairs at a learning rate of {settings.learning_rate:g}"
    )


def build(kind: type[S], values: Mapping[str, Any], name: str) -> S:
    """Validate values into ``kind``.

    Raises:
        UserError: one sentence about the first value that is not allowed.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        what = f"{field}={first['input']!r} is not allowed: {first['msg'].lower()}" if field else first["msg"]
        raise UserError(f"{name}: {what}") from error


def parse_budget(typed: str) -> dict[str, str]:
    """``forwards=20000`` as overrides.

    Raises:
        UserError: it has another form.
    """
    unit, equals, amount = typed.partition("=")
    if not equals or not amount:
        raise UserError(f"--budget {typed!r} is not of the form unit=amount, for example --budget forwards=20000")
    return {"budget.unit": unit, "budget.amount": amount}


def check_label(name: str | None) -> None:
    """Raise a `UserError` when a configuration's name cannot be a folder's."""
    if name is not None and not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(
            f"--name {name!r} is no name: give letters, digits, '.', '_', '+' and '-', and begin with a letter or digit"
        )


def run_name(overrides: Mapping[str, str], recipe: Recipe, **given: str) -> str:
    """The recipe's name, or a short hash of what was changed in it and changes what comes out.

    Args:
        given: digests of data or weights that were given instead of the model's own; they add a short hash.
    """
    changed = {field: value for field, value in overrides.items() if field not in TrainingSettings.execution_fields()}
    name = f"set-{digest(changed)[:8]}" if changed else recipe.name
    return f"{name}-{digest(given)[:8]}" if given else name
