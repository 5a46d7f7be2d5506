"""Contracts about what an algorithm states and which fields it has; they need no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_origin

import annotated_types
from pydantic import ValidationError

from bench.experiments.contracts.algorithm_case import AlgorithmCase, contract
from bench.experiments.contracts.contract import BrokenError, expect
from bench.experiments.recipes import resolve
from bench.training.algorithm import Need, Recipe
from bench.training.settings import TrainingSettings

OUTSIDE = {
    annotated_types.Gt: ("gt", 0),
    annotated_types.Ge: ("ge", -1),
    annotated_types.Lt: ("lt", 0),
    annotated_types.Le: ("le", 1),
}
"""The attribute of a bound that holds its number, and what leads from the number to one that is not allowed."""


@contract()
def states_what_it_is(case: AlgorithmCase) -> None:
    """It states its title, its paper, its formula and its status."""
    info = case.algorithm.info
    empty = [name for name in ("title", "paper", "formula", "status") if not getattr(info, name)]
    expect(not empty, "words in each of them", f"nothing in {', '.join(empty)}")


@contract()
def describes_its_fields(case: AlgorithmCase) -> None:
    """Every field has a description, which `bench list` shows."""
    bare = [name for name, field in type(case.algorithm).model_fields.items() if not field.description]
    expect(not bare, "a description of every field", f"none of {', '.join(bare)}")


@contract()
def recipes_resolve(case: AlgorithmCase) -> str:
    """Every recipe names its source, and its fields are accepted."""
    kind = type(case.algorithm)
    for model, recipe in case.algorithm.recipes.items():
        expect(isinstance(recipe, Recipe), f"a bench.Recipe for {model}", type(recipe).__name__)
        expect(bool(recipe.source), f"the source of the recipe for {model}", "nothing")
        resolved, settings = resolve(case.name, kind, model, {})
        for stated, made in ((recipe.algorithm, resolved.model_dump()), (recipe.training, settings.model_dump())):
            lost = {field: value for field, value in stated.items() if made.get(field) != value}
            expect(not lost, f"the recipe for {model} to arrive as stated", f"other values for {', '.join(lost)}")
    return ", ".join(case.algorithm.recipes) or "none"


@contract()
def names_its_reward(case: AlgorithmCase) -> None:
    """It states the need of a reward exactly when it names the metrics it is trained on."""
    needs, named = Need.REWARD in case.algorithm.needs, case.algorithm.trained_on
    expect(
        needs == bool(named), "both or neither of Need.REWARD and trained_on", f"needs it: {needs}, trained_on: {named}"
    )


@contract()
def survives_json(case: AlgorithmCase) -> None:
    """Written as JSON and read back, it has the same fields; so have its recipes."""
    kind = type(case.algorithm)
    for made in (case.algorithm, *(kind(**recipe.algorithm) for recipe in case.algorithm.recipes.values())):
        again = kind.model_validate_json(made.model_dump_json())
        expect(again == made and again.model_dump() == made.model_dump(), repr(made), repr(again))


@contract()
def shares_no_name_with_training(case: AlgorithmCase) -> None:
    """No field has the name of a field of training, since both are set with --set."""
    shared = sorted(set(type(case.algorithm).model_fields) & set(TrainingSettings.model_fields))
    expect(not shared, "other names", ", ".join(shared))


@contract()
def refuses_unknown_fields(case: AlgorithmCase) -> None:
    """An unknown field is refused by name."""
    _refused(case, "no_such_field", 1)


@contract()
def bounds_its_numbers(case: AlgorithmCase) -> str:
    """Every number has a bound and is refused by name beyond it."""
    numbers = {
        name: field for name, field in type(case.algorithm).model_fields.items() if field.annotation in (int, float)
    }
    for name, field in numbers.items():
        values = _beyond(field.metadata)
        expect(bool(values), f"a bound of {name}, as Field(gt=0)", "none")
        for value in values:
            _refused(case, name, value)
    return ", ".join(numbers)


@contract()
def refuses_other_words(case: AlgorithmCase) -> None:
    """A field of a few words refuses any other by name."""
    for name, field in type(case.algorithm).model_fields.items():
        if get_origin(field.annotation) is Literal:
            _refused(case, name, "no such choice")


@contract()
def refuses_infinite_numbers(case: AlgorithmCase) -> None:
    """Numbers that are not finite are refused by name."""
    for name, value in case.algorithm.model_dump().items():
        if isinstance(value, float):
            _refused(case, name, math.nan)
            _refused(case, name, math.inf)


@contract()
def is_frozen(case: AlgorithmCase) -> None:
    """Its fields cannot be changed once it is made."""
    for name in type(case.algorithm).model_fields:
        try:
            setattr(case.algorithm, name, getattr(case.algorithm, name))
        except ValidationError as error:
            expect("frozen" in str(error), "a refusal that says frozen", str(error))
        else:
            raise BrokenError(f"expected {name} to be frozen, found that it can be set")


def _refused(case: AlgorithmCase, name: str, value: object) -> None:
    """Expect a value to be refused with the name of its field."""
    wanted: Mapping[str, Any] = {name: value}
    try:
        type(case.algorithm).model_validate(wanted)
    except ValidationError as error:
        expect(name in str(error), f"a refusal that names {name}", str(error))
    else:
        raise BrokenError(f"expected {name}={value} to be refused, found that it is accepted")


def _beyond(metadata: Sequence[Any]) -> list[float]:
    """The nearest whole steps outside the bounds of a field."""
    return [
        getattr(limit, side) + outside
        for limit in metadata
        for kind, (side, outside) in OUTSIDE.items()
        if type(limit) is kind
    ]


CONTRACTS = (
    states_what_it_is,
    describes_its_fields,
    recipes_resolve,
    names_its_reward,
    survives_json,
    shares_no_name_with_training,
    refuses_unknown_fields,
    bounds_its_numbers,
    refuses_other_words,
    refuses_infinite_numbers,
    is_frozen,
)
