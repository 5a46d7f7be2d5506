"""Generators of malformed inputs, by what they are of; importing this registers them all."""

from tests.fuzz.kinds import (
    bundles,
    metrics,
    models,
    pairs,
    pictures,
    prompts,
    records,
    speech,
    storage,
    studies,
    tables,
)

__all__ = [
    "bundles",
    "metrics",
    "models",
    "pairs",
    "pictures",
    "prompts",
    "records",
    "speech",
    "storage",
    "studies",
    "tables",
]
