"""What the version under test calls the settings that cases set."""

from __future__ import annotations

import importlib.util

OLDER = {"global_batch_size": "batch", "micro_batch_size": "micro_batch", "warmup_steps": "warmup"}
"""Names at 5a63dd6, where all of the package was in one folder."""


def setting(name: str, value: object) -> list[str]:
    """The words that set a field of training."""
    named = name if importlib.util.find_spec("bench.core") is not None else OLDER.get(name, name)
    return ["--set", f"{named}={value}"]


def one_step() -> list[str]:
    """The words for the shortest training."""
    sizes = {"steps": 1, "global_batch_size": 2, "micro_batch_size": 2, "warmup_steps": 0}
    return [word for name, value in sizes.items() for word in setting(name, value)]
