"""Old records are read; a new field of a run's identity needs a migration."""

from __future__ import annotations

from typing import Any

from bench.records.migrations import SCHEMA, migrated
from bench.training.settings import TrainingSettings

OLD: dict[str, Any] = {
    "schema": 1,
    "trained_on": [],
    "resolved": {
        "init": "d9389e4e706c7c13",
        "training": {
            "batch": 32, "caption_dropout": 0.1, "checkpoint_seconds": 60.0, "clip_norm": 1.0, "gradient_checkpointing": False,
            "learning_rate": 1e-05, "lora_rank": 16, "micro_batch": 32, "precision": "fp32", "steps": 100, "warmup": 10,
            "weight_decay": 0.01, "weights": "full",
        },
    },
}  # fmt: skip
"""As the first version wrote it, cut down."""


def test_a_run_of_schema_1_has_the_identity_that_it_would_have_today() -> None:
    today = TrainingSettings(steps=100, global_batch_size=32, learning_rate=1e-5, warmup_steps=10)
    config = migrated(OLD)
    assert config is not None
    expected = today.model_dump(mode="json", exclude=set(today.execution_fields()))
    assert config["resolved"]["training"] == expected, (
        "a field was added to a run's identity: raise SCHEMA in bench/records/migrations.py, and say in a step from the last one "
        "what was done before the field was there"
    )
    assert config["resolved"]["rewards"] == {}
    assert config["schema"] == SCHEMA


def test_a_run_of_the_present_schema_stays_as_it_is_and_a_later_one_is_not_read() -> None:
    assert migrated({"schema": SCHEMA, "resolved": {}}) == {"schema": SCHEMA, "resolved": {}}
    assert migrated({"schema": SCHEMA + 1}) is None
    assert migrated({}) is None
