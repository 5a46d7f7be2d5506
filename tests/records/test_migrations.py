"""Old records are read; a new field of a run's identity needs a migration."""

from __future__ import annotations

from typing import Any

import pytest

from bench.records.migrations import SCHEMA, STEPS, first_names, migrated
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
AVERAGE = {"ema_decay": 0.0, "ema_every": 1}
"""What schema 7 added."""


def test_a_run_of_schema_1_has_the_identity_that_it_would_have_today() -> None:
    today = TrainingSettings(steps=100, global_batch_size=32, learning_rate=1e-5, warmup_steps=10, latents="mean")
    config = migrated(OLD)
    assert config is not None
    expected = today.model_dump(mode="json", exclude=set(today.execution_fields()))
    assert config["resolved"]["training"] == expected, (
        "a field was added to a run's identity: raise SCHEMA in bench/records/migrations.py, and say in a step from the last one "
        "what was done before the field was there"
    )
    assert config["resolved"]["rewards"] == {}


def test_of_a_run_that_trained_on_scores_it_is_not_known_with_which_scorer() -> None:
    config = migrated({**OLD, "trained_on": ["pickscore"]})
    assert config is not None
    assert "rewards" not in config["resolved"]


def test_an_algorithms_own_fields_keep_their_names() -> None:
    """A plug-in may call a field ``weights`` or ``schedule``, as settings of training were called."""
    old: dict[str, Any] = {
        "schema": 2,
        "changed": {"schedule": "3", "batch": "4", "objective_fields.inversion": "snap", "kind": "snap"},
        "resolved": {
            "algorithm": {"schedule": 3, "inversion": "snap", "objective_fields": {"inversion": "snap"}, "kind": "snap"},
            "training": {"schedule": "cosine", "batch": 4},
        },
    }  # fmt: skip
    assert migrated(old) == {
        "changed": {"schedule": "3", "global_batch_size": "4", "objective_fields.inversion": "grid", "kind": "snap"},
        "resolved": {
            "algorithm": {"schedule": 3, "inversion": "grid", "objective_fields": {"inversion": "grid"}, "kind": "snap"},
            "training": {
                "lr_schedule": "cosine", "global_batch_size": 4,
                "latents": "mean", "horizontal_flip": "none", "lora_init": "uniform", "labels": "as given", "stop_when": None,
                "rounds": None, "ema_decay": 0.0, "ema_every": 1,
            },
        },
    }  # fmt: skip
    assert old["resolved"]["training"] == {"schedule": "cosine", "batch": 4}


def test_a_run_of_schema_3_trained_on_the_mean_of_the_posterior_without_flips() -> None:
    old = {"schema": 3, "resolved": {"training": {"steps": 5}, "algorithm": {"utility": "risk_seeking"}}}
    assert migrated(old) == {
        "resolved": {
            "training": {
                "steps": 5, "latents": "mean", "horizontal_flip": "none", "lora_init": "uniform", "labels": "as given", "stop_when": None,
                "rounds": None, "ema_decay": 0.0, "ema_every": 1,
            },
            "algorithm": {"utility": "risk_seeking_3"},
        }
    }  # fmt: skip


def test_a_run_of_schema_4_trained_on_preferences_as_given() -> None:
    assert migrated({"schema": 4, "resolved": {"training": {"steps": 5}}}) == {
        "resolved": {"training": {"steps": 5, "labels": "as given", "stop_when": None, "rounds": None, **AVERAGE}}
    }


def test_a_run_of_schema_5_was_not_trained_in_rounds() -> None:
    assert migrated({"schema": 5, "resolved": {"training": {"steps": 5}}}) == {
        "resolved": {"training": {"steps": 5, "rounds": None, **AVERAGE}}
    }


def test_a_run_of_schema_6_saved_its_last_weights() -> None:
    assert migrated({"schema": 6, "resolved": {"training": {"steps": 5}}}) == {
        "resolved": {"training": {"steps": 5, **AVERAGE}}
    }


def test_a_run_of_the_present_schema_stays_as_it_is_and_a_later_one_is_not_read() -> None:
    assert migrated({"schema": SCHEMA, "resolved": {}}) == {"resolved": {}}
    assert migrated({"schema": SCHEMA + 1}) is None
    assert migrated({}) is None
    assert list(STEPS) == list(range(1, SCHEMA))


@pytest.mark.parametrize("resolved", [None, [], "x", {}, {"training": None}])
@pytest.mark.parametrize("schema", [1, 2])
def test_what_is_damaged_is_left_for_whoever_validates_it(schema: int, resolved: Any) -> None:
    config = migrated({"schema": schema, "trained_on": ["clip"], "resolved": resolved, "changed": 3})
    assert config == {"trained_on": ["clip"], "resolved": resolved, "changed": 3}


def test_names_of_folders_are_hashes_of_the_first_names() -> None:
    today = {"global_batch_size": "4", "beta": "1", "inversion": "grid", "grid": "40"}
    before = {"batch": "4", "beta": "1", "inversion": "snap", "grid": "40"}
    assert first_names(today) == first_names(before) == before
