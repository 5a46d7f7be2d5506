"""A study: what `bench run` does for several models, algorithms with grids of settings, and seeds, as one value."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from bench.core.errors import UserError
from bench.experiments.configurations import ALL, Configuration
from bench.experiments.experiment import Choices
from bench.experiments.interface import as_overrides
from bench.training.algorithm import ALGORITHMS

Value = bool | int | float | str
MOST_RUNS = 10_000
"""Runs of the largest study."""


def _listed(value: Any) -> Any:
    """A single value as a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def _number(value: Value) -> float:
    return value if isinstance(value, float) else 0.0


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by dotted name: ``{"budget": {"unit": "pairs"}}`` becomes ``{"budget.unit": "pairs"}``."""
    flat: dict[str, Any] = {}
    for field, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{field}.{part}": inner for part, inner in _flat(dict(value)).items()}
        elif "" in _listed(value):  # which --set cannot say
            raise PydanticCustomError("setting", "{field} is empty; give a value, or leave it out", {"field": field})
        elif value != [] and all(isinstance(each, Value) and math.isfinite(_number(each)) for each in _listed(value)):
            flat[field] = value
        else:
            raise PydanticCustomError(
                "setting", "{field} must be a number, a text, true or false, or a list of these", {"field": field}
            )
    return flat


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("distinct", "give each value once")
    return values


def _single(value: Any) -> Any:
    if not isinstance(value, Value):
        raise PydanticCustomError("value", "give a number, a text, or true or false")
    return value


def _without_commas(names: tuple[str, ...]) -> tuple[str, ...]:
    """Registered names have no commas: they are those between the names that an option takes.  The folder of ``fitted:FOLDER`` may."""
    if any("," in name.partition(":")[0] for name in names):
        parts = [part.strip() for name in names for part in name.split(",")]
        raise PydanticCustomError("names", "give a list, {names}", {"names": json.dumps(parts)})
    return names


def _texts(columns: Any) -> Any:
    """The label of every row may be a number, as ``--columns label_0=1`` has it."""
    if not isinstance(columns, dict):
        return columns
    return {
        name: str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in columns.items()
    }


_ONE: dict[str, Any] = {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "boolean"}]}
_SETTING = {"anyOf": [*_ONE["anyOf"], {"type": "array", "items": _ONE, "minItems": 1}, {"type": "object"}]}

Settings = Annotated[
    dict[str, Any],
    AfterValidator(_flat),
    WithJsonSchema({"type": "object", "additionalProperties": _SETTING}),
]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_listed),
    AfterValidator(_distinct),
    Field(min_length=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
            ]
        }
    ),
]


Single = Annotated[Value, BeforeValidator(_single)]
Registered = Annotated[Names, AfterValidator(_without_commas)]
Columns = Annotated[
    dict[str, str],
    BeforeValidator(_texts),
    WithJsonSchema({"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "number"}]}}),
]
Stated = Annotated[
    dict[str, Single],
    BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"name": {"type": "string"}},
                    "required": ["name"],
                    "additionalProperties": _ONE,
                },
            ]
        }
    ),
]


class AlgorithmEntry(BaseModel):
    """An algorithm of a study, with the settings that are tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        description="registered name, or all: each that can run and has no entry of its own; see: bench list algorithms"
    )
    label: str | None = Field(
        default=None,
        description="name of this configuration in tables and paths; default: recipe, or a hash of the changed settings",
    )
    settings: Settings = Field(
        default_factory=dict,
        description="changes to the recipe, by field of the algorithm or of training; a list is a grid, one configuration each",
    )


class Study(BaseModel):
    """What ``bench run`` does, as a file states it; a field that is left out is as for the option that is not typed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, title="bench run experiment.toml")

    model: Names = Field(description="a registered model, a diffusers folder or a hub id; or a list of them")
    algorithms: tuple[AlgorithmEntry, ...] = Field(min_length=1, description="the algorithms that are compared")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=1 << 63)], ...], AfterValidator(_distinct)] = Field(
        default=(0,), min_length=1, description="training seeds of each configuration"
    )
    settings: Settings = Field(
        default_factory=dict,
        description="changes to every algorithm's recipe, as --set makes them; a list is a grid; see: bench list training",
    )
    data: str | None = Field(
        default=None, description="preference data: a file, a folder, or a hub id as owner/name:split"
    )
    columns: Columns | None = Field(
        default=None, description="the data's column names by expected name, for example caption = 'text'"
    )
    prompts: str | None = Field(default=None, description="evaluation prompts: a registered set or a file")
    metrics: Registered | None = Field(default=None, description="evaluation metrics; default: the model's")
    images: dict[str, Single] | None = Field(
        default=None, description="how evaluation images are made; part of the protocol; see: bench list images"
    )
    init: str | None = Field(
        default=None, description="weights to start from: a finished run, a file, a folder or a hub id"
    )
    limit: int | None = Field(
        default=None, ge=2, description="trial: use only the first so many evaluation prompts and training pairs"
    )
    placebo: bool = Field(default=False, description="add to every run its placebo, on shuffled preferences")
    same_code: bool = Field(
        default=False, description="declare that code which changed since earlier seeds gives the same results"
    )
    wait: bool = Field(
        default=False, description="wait where another process works on a run, instead of refusing; Slurm's jobs do"
    )
    runs: str = Field(default="runs", description="folder of all runs")
    track: Registered | None = Field(
        default=None,
        description="trackers that get what train.jsonl gets: tensorboard, wandb, trackio, mlflow, swanlab",
    )
    executor: Stated | None = Field(
        default=None,
        description="where runs are started: a registered executor's name, or a table of name and its settings; default: one "
        "after another in this process",
    )

    def choices(self) -> Choices:
        """What `bench.experiments.experiment.Experiment` takes; whatever was left out is not in it."""
        given = {name: getattr(self, name) for name in Choices.__annotations__}
        return cast("Choices", {name: value for name, value in given.items() if value is not None})

    @property
    def size(self) -> int:
        """How many runs the study is at most, without placebos."""
        grids = (
            math.prod(len(_listed(each)) for each in self._settings_of(entry).values())
            * (len(list(ALGORITHMS)) if entry.name == ALL else 1)
            for entry in self.algorithms
        )
        return len(self.model) * len(self.seeds) * sum(grids)

    def _settings_of(self, entry: AlgorithmEntry) -> dict[str, Any]:
        return {**self.settings, **entry.settings}

    def configurations(self) -> Iterator[Configuration]:
        """Every configuration, in the order of the file; the last setting of a grid varies fastest.

        Raises:
            UserError: there are more than `MOST_RUNS` runs.
        """
        if self.size > MOST_RUNS:
            raise UserError(f"the grids are {self.size:,} runs, and at most {MOST_RUNS:,} are planned; split the study")
        for number, entry in enumerate(self.algorithms):
            for settings in grid(self._settings_of(entry)):
                yield Configuration(entry.name, as_overrides(settings), entry.label, ("algorithms", number))


def grid(settings: Mapping[str, Any]) -> Iterator[dict[str, Value]]:
    """Every combination of the values of settings, the last setting varying fastest.

    Args:
        settings: by field; a list holds the values that are tried.
    """
    for values in itertools.product(*(_listed(value) for value in settings.values())):
        yield dict(zip(settings, values, strict=True))
