"""Configurations of runs that older versions wrote, as this version would have written them.

A change of what ``config.json`` holds raises ``SCHEMA`` and adds a step to ``STEPS`` that says what older runs did, so that a
finished run is recognised by the command that made it.  For a new setting of training, that is one line:

    def _from_7(config: Config) -> Config:
        return _with_part(config, lambda old: {"new_setting": "what was done before", **old}, "resolved", "training")
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

SCHEMA = 7

Config = dict[str, Any]

EXECUTION_OF_1 = ("micro_batch", "gradient_checkpointing", "compile", "checkpoint_seconds")
"""Fields that schema 1 counted towards a run's identity although they do not change the result."""
ADDED_IN_1 = {
    "budget": None,
    "picture_size": "true",
    "optimizer": "adamw",
    "schedule": "constant",
    "aspect_ratios": "square",
}
"""Training settings that were added under schema 1, with the behaviour before."""

RENAMED = {
    "batch": "global_batch_size",
    "micro_batch": "micro_batch_size",
    "warmup": "warmup_steps",
    "clip_norm": "max_grad_norm",
    "schedule": "lr_schedule",
    "picture_size": "size_conditioning",
    "weights": "trainable",
}
"""Training settings by their names up to schema 2, with their names today."""
RENAMED_VALUES = {("inversion", "snap"): "grid", ("utility", "risk_seeking"): "risk_seeking_3"}
"""Values of fields of algorithms by their names up to schema 2 or 3, with their names today."""
ADDED_IN_3 = {"latents": "mean", "horizontal_flip": "none", "lora_init": "uniform"}
"""Training settings that came after schema 3, with what was done before they were there."""
ADDED_IN_4 = {"labels": "as given", "stop_when": None}
"""Likewise, after schema 4."""
ADDED_IN_5 = {"rounds": None}
"""Likewise, after schema 5."""
ADDED_IN_6 = {"ema_decay": 0.0, "ema_every": 1}
"""Likewise, after schema 6."""


def that_count(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training without those that came after schema 6 and are as before they came.

    A run that was begun before keeps its id without them, and archives of such runs are verified.
    """
    return {name: value for name, value in settings.items() if ADDED_IN_6.get(name, ...) != value}


def current_names(settings: Mapping[str, Any], own: Collection[str] = ()) -> dict[str, Any]:
    """Settings of training by today's names; ``own`` are names that the algorithm uses for its own fields."""
    return {name if name in own else RENAMED.get(name, name): value for name, value in settings.items()}


def current_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of an algorithm, also of one inside another, with today's values; their names stay."""
    return {
        name: current_values(value) if isinstance(value, Mapping) else _renamed_value(name, value)
        for name, value in fields.items()
    }


def first_names(settings: Mapping[str, str]) -> dict[str, str]:
    """What was typed, by the first names of settings and with the first values, of which folder names are a hash."""
    names = {new: old for old, new in RENAMED.items()}
    values = {(name, new): old for (name, old), new in RENAMED_VALUES.items()}
    return {names.get(name, name): values.get((name, value), value) for name, value in settings.items()}


def _renamed_value(name: str, value: Any) -> Any:
    """``name`` may be dotted, as it is typed."""
    return RENAMED_VALUES.get((name.rpartition(".")[2], value), value) if isinstance(value, str) else value


def migrated(config: Config) -> Config | None:
    """The configuration in this version's schema, without its number; None when no step leads there from its own.

    What does not match its schema is left unchanged; validating the result reports it.
    """
    schema: Any = config.get("schema")
    rest = {name: value for name, value in config.items() if name != "schema"}
    while schema in STEPS:
        rest, schema = STEPS[schema](rest), schema + 1
    return rest if schema == SCHEMA else None


def _with_part(config: Config, change: Callable[[Config], Config], *path: str) -> Config:
    """The configuration with the object at ``path`` changed, if there is one."""
    part = config.get(path[0])
    if not isinstance(part, dict):
        return config
    changed = _with_part(part, change, *path[1:]) if path[1:] else change(part)
    return {**config, path[0]: changed}


def _from_1(config: Config) -> Config:
    def training(old: Config) -> Config:
        return {name: value for name, value in {**ADDED_IN_1, **old}.items() if name not in EXECUTION_OF_1}

    def rewards(old: Config) -> Config:
        return {**old, "rewards": {}} if "training" in old and "rewards" not in old else old

    config = _with_part(config, training, "resolved", "training")
    return config if config.get("trained_on") else _with_part(config, rewards, "resolved")


def _from_2(config: Config) -> Config:
    def changed(old: Config) -> Config:
        return current_values(current_names(old, own=_algorithm_fields(config)))

    config = _with_part(config, changed, "changed")
    config = _with_part(config, current_names, "resolved", "training")
    return _with_part(config, current_values, "resolved", "algorithm")


def _from_3(config: Config) -> Config:
    # Nobody can say later by which code, and with which files of the model, a run was trained: both stay unknown.
    config = _with_part(config, lambda old: {**ADDED_IN_3, **old}, "resolved", "training")
    config = _with_part(config, current_values, "changed")
    return _with_part(config, current_values, "resolved", "algorithm")


def _from_4(config: Config) -> Config:
    return _with_part(config, lambda old: {**ADDED_IN_4, **old}, "resolved", "training")


def _from_5(config: Config) -> Config:
    return _with_part(config, lambda old: {**ADDED_IN_5, **old}, "resolved", "training")


def _from_6(config: Config) -> Config:
    return _with_part(config, lambda old: {**ADDED_IN_6, **old}, "resolved", "training")


def _algorithm_fields(config: Config) -> Collection[str]:
    """Names of the algorithm's fields, where the configuration has them."""
    fields: Any = config.get("resolved")
    fields = fields.get("algorithm") if isinstance(fields, dict) else None
    return fields if isinstance(fields, dict) else ()


STEPS: Mapping[int, Callable[[Config], Config]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
    4: _from_4,
    5: _from_5,
    6: _from_6,
}
"""By schema: the step from it to the next one."""
