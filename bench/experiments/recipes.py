"""From overrides as strings to typed settings: recipes, overrides, and errors that name the field."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from bench.core.errors import UserError, nearest_or_all
from bench.core.validation import build
from bench.core.values import digest
from bench.experiments.method import Method
from bench.models.find import FoundArchitecture, FoundModel
from bench.records.config import CHOICE, hash_of_given
from bench.records.migrations import RENAMED, current_names, current_values, first_names
from bench.training.algorithm import ALGORITHMS, UNTRIED, Algorithm, Recipe
from bench.training.online import SamplingAlgorithm
from bench.training.settings import TrainingSettings


def recipe_of(algorithm: type[Algorithm], model: str) -> Recipe:
    """The algorithm's recipe for a model; if there is none, a recipe that leaves all fields at their defaults."""
    defaults = Recipe(source="the fields' defaults", training=algorithm.training_defaults, name="defaults")
    return algorithm.recipes.get(model, defaults)


def recipe_key(name: str, algorithm: type[Algorithm], model: str, overrides: Mapping[str, str]) -> str:
    """The key of the recipe that is used for a model: its first, unless ``recipe`` among the overrides names another.

    Raises:
        UserError: there is no recipe of that name.
    """
    if CHOICE not in overrides or CHOICE in algorithm.model_fields:
        return model
    keys = [key for key in algorithm.recipes if key.partition("/")[0] == model]
    names = {algorithm.recipes[key].name: key for key in keys}
    if overrides[CHOICE] not in names:
        have = f"there are {', '.join(names)}" if names else "there is none; leave --set recipe out"
        raise UserError(f"{name} has no recipe {overrides[CHOICE]!r} for {model}: {have}")
    return names[overrides[CHOICE]]


def resolve(
    name: str, algorithm: type[Algorithm], model: str, overrides: Mapping[str, str]
) -> tuple[Algorithm, TrainingSettings]:
    """The algorithm and its settings: the recipe for a model, or the fields' defaults, with overrides applied.

    Raises:
        UserError: an unknown field (with similar names), a value that is not allowed, or no such recipe.
    """
    recipe = recipe_of(algorithm, recipe_key(name, algorithm, model, overrides))
    fields = set(algorithm.model_fields)
    if twice := [
        f"{old} and {new}" for old, new in RENAMED.items() if {old, new} <= overrides.keys() and old not in fields
    ]:
        raise UserError(f"{twice[0]} are the old and the new name of one setting; use the new one alone")
    overrides = current_values(current_names(overrides, own=fields))
    if CHOICE not in fields:
        overrides = {typed: value for typed, value in overrides.items() if typed != CHOICE}
    if (field := unknown_field(algorithm, overrides)) is not None:
        known = sorted(fields | set(TrainingSettings.model_fields))
        raise UserError(
            f"{name} has no field {field!r}: {nearest_or_all(field, known)} (--set applies to every algorithm of the command)"
        )
    if "steps" in overrides and any(typed.startswith("budget.") for typed in overrides):
        raise UserError("--set steps and --budget both say when training ends; use one of them")
    own, shared = current_values(recipe.algorithm), current_names(recipe.training)
    for choice, part in algorithm.fields_of.items():
        named = overrides.get(choice)
        if named is not None and named != own.get(choice, algorithm.model_fields[choice].default):
            own[part] = dict(recipe_of(ALGORITHMS.get(named), model).algorithm)
    for typed, value in overrides.items():
        field, dot, part = typed.partition(".")
        target: dict[str, Any] = own if field in fields else shared
        whole = target.get(field)
        target[field] = {**(whole if isinstance(whole, Mapping) else {}), part: value} if dot else value
    try:
        return build(algorithm, own, name), build(TrainingSettings, shared, name)
    except UserError as error:
        raise UserError(f"{error}{_about_grids(overrides, str(error))}") from error


def _about_grids(overrides: Mapping[str, str], refusal: str) -> str:
    """What to add to a sentence about a value that is several values, as of a grid."""
    several = [typed for typed, value in overrides.items() if "," in value and f"{typed}={value!r} is not" in refusal]
    return "; an experiment file states a grid, as a list: beta = [500, 1000]" if several else ""


def about_settings(method: Method, model: FoundModel | FoundArchitecture) -> Iterator[str]:
    """Lines about where a method's settings for a model come from: the recipe and what was changed, its source, and other recipes."""
    algorithm = type(method.algorithm)
    own = CHOICE in algorithm.model_fields  # then the choice is a setting of the algorithm's
    key = recipe_key(method.name, algorithm, model.recipe, method.changed)
    recipe = named_recipe(algorithm, model, key)
    changes = [f"{field}={value}" for field, value in method.changed.items() if own or field != CHOICE]
    if isinstance(method.algorithm, SamplingAlgorithm) and "rewards" not in method.changed:
        changes.append(f"rewards={','.join(method.algorithm.rewards)}")
    yield f"settings: {recipe.name}{' with ' if changes else ''}{', '.join(changes)}"
    if key in algorithm.recipes:
        yield f"their source: {recipe.source}"
    alike = [other for other in algorithm.recipes if other.partition("/")[0] == model.recipe and other != key]
    if alike and not own:
        yield f"other recipes (--set recipe=NAME): {', '.join(algorithm.recipes[other].name for other in alike)}"


def unknown_field(algorithm: type[Algorithm], overrides: Mapping[str, str]) -> str | None:
    """The first field among overrides that neither the algorithm nor training has; None if there is none."""
    fields = set(algorithm.model_fields)
    known = fields | set(TrainingSettings.model_fields) | {CHOICE}
    typed = (name.partition(".")[0] for name in current_names(overrides, own=fields))
    return next((field for field in typed if field not in known), None)


def make_method(
    name: str, model: FoundModel, overrides: Mapping[str, str], pairs: int, label: str | None = None, **given: str
) -> Method:
    """An algorithm as it will be trained on some data; with ``labels=shuffled`` among the overrides, its placebo.

    Args:
        name: the algorithm's registered name.
        model: the model, whose recipe is used.
        overrides: the user's changes to the recipe, by field.
        pairs: number of pairs in the data.
        label: what the user calls this configuration; None means the recipe's name or a hash, see `run_name`.
        given: see `run_name`.

    Raises:
        UserError: see `resolve`.
    """
    cls = ALGORITHMS.get(name)
    _, whole = resolve(name, cls, model.recipe, overrides)
    given_labels = {typed: value for typed, value in overrides.items() if typed != "labels"}
    changed = fit_batch(cls, given_labels, whole, pairs)
    algorithm, settings = resolve(name, cls, model.recipe, changed)
    recipe = named_recipe(cls, model, recipe_key(name, cls, model.recipe, changed))
    label = label or run_name(changed, recipe, **given)
    source = f"{model.recipe}'s recipe for {name}" if model.recipe in cls.recipes else f"{name}'s defaults"
    note = f"settings are {source}" if model.borrowed and model.recipe in cls.recipes else None
    if settings.global_batch_size < whole.global_batch_size:
        lowered = f"global_batch_size lowered from {whole.global_batch_size} to {settings.global_batch_size}"
        note = f"settings are {source}, {lowered}: there are {pairs} pairs"
    method = Method(name, algorithm, settings, label, changed, note)
    return method.as_placebo() if whole.labels == "shuffled" else method


def fit_batch(
    algorithm: type[Algorithm], overrides: Mapping[str, str], settings: TrainingSettings, pairs: int
) -> dict[str, str]:
    """The overrides, plus a batch of all pairs if the recipe's is larger than the data; a batch size that was typed stays.

    Args:
        algorithm: the algorithm; of one that samples, the batch stays, since there may be more samples than data.
        overrides: the user's changes to the recipe, by field.
        settings: the recipe with these changes.
        pairs: number of pairs in the data.
    """
    typed = "global_batch_size" in current_names(overrides, algorithm.model_fields)
    if issubclass(algorithm, SamplingAlgorithm) or typed or settings.global_batch_size <= pairs:
        return dict(overrides)
    return {**overrides, "global_batch_size": str(pairs)}


def named_recipe(algorithm: type[Algorithm], model: FoundModel | FoundArchitecture, key: str) -> Recipe:
    """The algorithm's recipe of a key; a recipe borrowed from another model has that model's name as a prefix."""
    recipe = recipe_of(algorithm, key)
    if model.borrowed and model.recipe in algorithm.recipes:
        return dataclasses.replace(recipe, name=f"{model.recipe}-{recipe.name}")
    return recipe


def outdated_names(algorithm: type[Algorithm], overrides: Mapping[str, str]) -> str | None:
    """A sentence about settings whose names come from an earlier version; None if there are none."""
    own = set(algorithm.model_fields)
    old = [f"{name} is now {RENAMED[name]}" for name in overrides if name in RENAMED.keys() - own]
    old += [
        f"{name}={overrides[name]} is now {name}={value}"
        for name, value in current_values(overrides).items()
        if value != overrides[name]
    ]
    return f"renamed settings: {', '.join(old)}; the old names are accepted until version 0.3" if old else None


def without_recipe(name: str, algorithm: type[Algorithm], model: str, settings: TrainingSettings) -> str | None:
    """A warning if an algorithm has no published or tested recipe for a model; None if it has one."""
    recipe = recipe_of(algorithm, model)
    if recipe.name not in UNTRIED:
        return None
    if model in algorithm.recipes:
        return f"the settings of {name} for {model} are untested: {recipe.source}"
    have = f" (there are some for {', '.join(algorithm.recipes)})" if algorithm.recipes else ""
    length = f"{settings.steps} steps" if settings.budget is None else "until the budget is spent"
    return (
        f"no published or tested settings of {name} for {model}{have}; using defaults: {length}, batch size "
        f"{settings.global_batch_size}, learning rate {settings.learning_rate:g}; results may say little about {name}"
    )


def run_name(overrides: Mapping[str, str], recipe: Recipe, **given: str) -> str:
    """The recipe's name, or a short hash of those changes to it that affect the result.

    Args:
        given: digests of data or weights used instead of the model's own; they add a short hash.
    """
    # Hashed under the settings' first names, so that a finished run is found under the name that an older version gave it.
    execution = first_names(dict.fromkeys(TrainingSettings.execution_fields(), ""))
    changed = {field: _canonical(value) for field, value in first_names(overrides).items() if field not in execution}
    name = f"set-{digest(changed)[:8]}" if changed.keys() - {CHOICE} else recipe.name
    return f"{name}-{hash_of_given(given)}" if given else name


def _canonical(value: str) -> str:
    """One spelling of a number, so that ``1e-5``, ``0.00001`` and Python's ``1e-05`` name the same run; other words as they are."""
    try:
        number = float(value)
    except ValueError:
        return value
    return str(int(number)) if number.is_integer() else repr(number)
