"""Generators of malformed inputs, by what they are of; importing this registers them all."""

from tests.fuzz.kinds import metrics, models, pairs, pictures, prompts, records, storage, tables

__all__ = ["metrics", "models", "pairs", "pictures", "prompts", "records", "storage", "tables"]
