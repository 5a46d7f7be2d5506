"""The registered models and pipeline classes."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.registry import ClassOf, InstanceOf, Registry
from bench.models.card import ModelCard
from bench.models.family import ModelFamily

MODELS: Registry[ModelCard] = Registry("bench.models", "model", InstanceOf(ModelCard))
"""The registered models by name: iterate over names, ``get(name)`` returns the `ModelCard`."""
FAMILIES: Registry[type[ModelFamily]] = Registry(
    "bench.families", "pipeline class", ClassOf(ModelFamily, recipe=str, lora_targets=Sequence)
)
