"""Configurations of runs that older versions wrote, as this version would have written them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SCHEMA = 3

Config = dict[str, Any]

EXECUTION_OF_1 = ("micro_batch", "gradient_checkpointing", "compile", "checkpoint_seconds")
"""What schema 1 counted to a run's identity though it does not change what comes out."""
ADDED = {
    "budget": None,
    "picture_size": "true",
    "optimizer": "adamw",
    "schedule": "constant",
    "aspect_ratios": "square",
}
"""Training settings that came while schema 1 was written, with what was done before they were there."""

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
RENAMED_VALUES = {("inversion", "snap"): "grid"}
"""Values of fields of algorithms by their names up to schema 2, with their names today."""


def current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an algorithm or of training, old names and values replaced by those of today."""
    renamed = {RENAMED.get(name, name): value for name, value in settings.items()}
    return {
        name: RENAMED_VALUES.get((name, value), value) if isinstance(value, str) else value
        for name, value in renamed.items()
    }


def migrated(config: Config) -> Config | None:
    """The configuration in this version's schema; None when no step leads there from its own."""
    while config.get("schema") in STEPS:
        config = STEPS[config["schema"]](config)
    return config if config.get("schema") == SCHEMA else None


def _from_1(config: Config) -> Config:
    resolved = dict(config["resolved"])
    if "training" in resolved:
        training = {**ADDED, **resolved["training"]}
        resolved["training"] = {name: value for name, value in training.items() if name not in EXECUTION_OF_1}
        if not config["trained_on"]:
            resolved.setdefault("rewards", {})
    return {**config, "schema": 2, "resolved": resolved}


def _from_2(config: Config) -> Config:
    resolved = dict(config["resolved"])
    for part in ("training", "algorithm"):
        if part in resolved:
            resolved[part] = current_names(resolved[part])
    changed = {"changed": current_names(config["changed"])} if "changed" in config else {}
    return {**config, **changed, "schema": 3, "resolved": resolved}


STEPS: Mapping[int, Callable[[Config], Config]] = {1: _from_1, 2: _from_2}
