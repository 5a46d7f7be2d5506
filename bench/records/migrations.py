"""Configurations of runs that older versions wrote, as this version would have written them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SCHEMA = 2

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


STEPS: Mapping[int, Callable[[Config], Config]] = {1: _from_1}
