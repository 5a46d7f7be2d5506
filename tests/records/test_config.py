"""``config.json`` is a type: what it holds, and how a damaged one is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.core.errors import UserError
from bench.core.files import read_json, write_json
from bench.records.config import DataIdentity, DataReport, NegativeScales, Resolved, RunConfig
from bench.records.migrations import SCHEMA
from bench.records.runs import RunFolder
from bench.records.training import TrainingRecord

WRITTEN: dict[str, Any] = {
    "schema": SCHEMA,
    "model": "tiny",
    "algorithm": "npo",
    "title": "Diffusion-NPO",
    "name": "set-1",
    "changed": {"steps": "2"},
    "seed": 3,
    "typed": ["run", "--algo", "npo"],
    "base_weights": "d938",
    "init": "base",
    "recipe": None,
    "resolved": {
        "algorithm": {"objective": "dpo", "objective_fields": {}},
        "training": {"steps": 2, "budget": None, "learning_rate": 1e-05},
        "init": "d938",
        "data": {"digest": "5539", "labels": "5abf", "pairs": 2000},
        "rewards": {},
        "negative": {"alpha": 1.0, "beta": 0.5},
    },
    "data": {"source": "pairs.parquet", "rows": 2001, "pairs": 2000, "ties_dropped": 1, "undecodable": ["7"]},
    "trained_on": ["clip"],
}


def made() -> RunConfig:
    """The same, as an experiment makes it."""
    training = {"steps": 2, "budget": None, "learning_rate": 1e-05}
    return RunConfig(
        model="tiny",
        algorithm="npo",
        title="Diffusion-NPO",
        name="set-1",
        changed={"steps": "2"},
        seed=3,
        typed=("run", "--algo", "npo"),
        base_weights="d938",
        init="base",
        recipe=None,
        resolved=Resolved(
            algorithm={"objective": "dpo", "objective_fields": {}},
            training=TrainingRecord.model_validate(training),
            init="d938",
            data=DataIdentity(digest="5539", labels="5abf", pairs=2000),
            rewards={},
            negative=NegativeScales(alpha=1.0, beta=0.5),
        ),
        data=DataReport("pairs.parquet", 2001, 2000, 1, ("7",)),
        trained_on=("clip",),
    )


def test_a_run_is_written_and_read_back(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(made())
    assert read_json(run.folder / "config.json") == WRITTEN
    read = run.config()
    assert read == made()
    assert read.resolved.training is not None
    assert (read.label, read.resolved.training.length, read.is_base, read.is_trained) == (
        "Diffusion-NPO (set-1)", "2", False, True,
    )  # fmt: skip
    with pytest.raises(ValidationError, match="frozen"):
        read.seed = 4  # type: ignore[misc]


def test_the_base_model_and_released_weights_say_little(tmp_path: Path) -> None:
    base, released = RunFolder(tmp_path / "base"), RunFolder(tmp_path / "theirs")
    base.begin(RunConfig(model="tiny", algorithm="base", title="Tiny", resolved=Resolved()))
    assert read_json(base.folder / "config.json") == {
        "schema": SCHEMA, "model": "tiny", "algorithm": "base", "title": "Tiny", "resolved": {},
    }  # fmt: skip
    assert (base.config().is_base, base.config().label, base.config().seed) == (True, "Tiny", None)
    of = Resolved(weights="0123")
    released.begin(
        RunConfig(model="tiny", algorithm="weights", title="theirs", name="theirs", source="./x", resolved=of)
    )
    assert read_json(released.folder / "config.json")["resolved"] == {"weights": "0123"}
    config = released.config()
    assert (config.is_base, config.is_trained, config.label, config.source) == (False, False, "theirs", "./x")


def test_a_run_with_other_settings_is_refused_by_the_fields_that_differ(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(made())
    run.begin(made().model_copy(update={"changed": {}, "typed": ("again",)}))  # how it was typed does not matter
    resolved = made().resolved
    other = resolved.model_copy(
        update={
            "training": TrainingRecord.model_validate({"steps": 2, "budget": None, "learning_rate": 2e-5}),
            "negative": None,
            "data": DataIdentity(digest="5539", labels="aaaa", pairs=2000),
        }
    )
    with pytest.raises(UserError) as caught:
        run.begin(made().model_copy(update={"resolved": other}))
    assert str(caught.value).startswith(
        f"{run.folder} holds a run that differs in data.labels ('5abf' and 'aaaa'), "
        "negative ({'alpha': 1.0, 'beta': 0.5} and None), training.learning_rate (1e-05 and 2e-05);"
    )


def test_a_budget_is_told_instead_of_steps() -> None:
    record = TrainingRecord.model_validate({"steps": 100, "budget": {"unit": "forwards", "amount": 20000}})
    assert record.length == "a budget of 20000 forwards"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("recipe", "Diffusion-NPO (recipe, placebo)"),
        ("default", "Diffusion-NPO (placebo)"),
        ("set-0123abcd", "Diffusion-NPO (steps=2, placebo)"),
        ("set-0123abcd-4567cdef", "Diffusion-NPO (steps=2, 4567cdef, placebo)"),
    ],
)
def test_a_placebo_has_the_words_of_the_run_whose_twin_it_is(name: str, label: str) -> None:
    twin = made().model_copy(update={"name": f"{name}-placebo", "placebo_of": name})
    assert twin.label == label


def test_shuffled_labels_are_part_of_the_identity(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(made())
    training = TrainingRecord.model_validate({**WRITTEN["resolved"]["training"], "labels": "shuffled"})
    other = made().model_copy(update={"resolved": made().resolved.model_copy(update={"training": training})})
    assert (made().labels, other.labels) == ("as given", "shuffled")
    with pytest.raises(UserError, match=r"differs in training\.labels"):
        run.begin(other)
    with pytest.raises(ValidationError, match="as given"):
        TrainingRecord.model_validate({"steps": 2, "labels": "mixed"})


def changed(change: Callable[[Any], None]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(WRITTEN))
    change(config)
    return config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config.pop("model"), "model: field required"),
        (lambda config: config.pop("resolved"), "resolved: field required"),
        (lambda config: config.pop("schema"), "schema: a whole number is required"),
        (lambda config: config.update(schema=[3]), "schema: a whole number is required"),
        (lambda config: config.pop("seed"), "seed: field required"),
        (lambda config: config.update(seed="zero"), "seed: input should be a valid integer"),
        (lambda config: config["resolved"].pop("training"), "resolved.training: field required"),
        (lambda config: config["resolved"]["training"].pop("steps"), "resolved.training.steps: field required"),
        (lambda config: config["resolved"].update(training=[]), "resolved.training: input should be a valid dictionary"),
        (lambda config: config["resolved"]["data"].pop("digest"), "resolved.data.digest: field required"),
        (lambda config: config["resolved"]["negative"].pop("beta"), "resolved.negative.beta: field required"),
        (lambda config: config["data"].update(pairs="many"), "data.pairs: input should be a valid integer"),
        (lambda config: config["data"].update(colour="red"), "holds data.colour, a field that this version does not know"),
        (lambda config: config.pop("data"), "data: field required"),
        (lambda config: config.update(trained_on="clip"), "trained_on: input should be a valid tuple"),
        (lambda config: config["resolved"].update(luck=1), "holds resolved.luck, a field that this version does not know"),
    ],
)  # fmt: skip
def test_what_is_missing_wrong_or_unknown_is_named_with_its_file(
    tmp_path: Path, change: Callable[[Any], None], said: str
) -> None:
    run = RunFolder(tmp_path / "run")
    write_json(run.folder / "config.json", changed(change))
    with pytest.raises(UserError, match=re.escape(f"{run.folder / 'config.json'} ") + f".*{re.escape(said)}") as caught:
        run.config()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schema", [1, 2])
def test_a_damaged_file_of_an_older_schema_is_named_too(tmp_path: Path, schema: int) -> None:
    run = RunFolder(tmp_path / "run")
    write_json(run.folder / "config.json", {"schema": schema, "model": "tiny", "algorithm": "dpo", "title": "DPO"})
    with pytest.raises(UserError, match="resolved: field required"):
        run.config()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("protocol.json", '{"model": "tiny"}', "base_weights: field required"),
        ("metrics.json", '{"gold": {"signature": "s", "identity": {}}}', "gold.info: field required"),
        ("metrics.json", '{"gold": {"signature": "s", "identity": {}, "info": {"title": 3}}}', "gold.info.title"),
        ("metrics.json", '["gold"]', "input should be a valid dictionary"),
        ("prompts.json", '[1, "a bee"]', "0: input should be a valid string"),
    ],
)
def test_records_of_an_evaluation_are_checked_the_same_way(tmp_path: Path, name: str, text: str, said: str) -> None:
    evaluation = RunFolder(tmp_path / "run").evaluation("abc")
    evaluation.folder.mkdir(parents=True)
    (evaluation.folder / name).write_text(text)
    read = {
        "protocol.json": evaluation.protocol,
        "metrics.json": evaluation.metrics,
        "prompts.json": evaluation.prompts,
    }
    with pytest.raises(UserError, match=re.escape(f"{evaluation.folder / name} is damaged ({said}")):
        read[name]()


def test_the_id_of_a_run_is_the_one_that_it_had_before_a_setting_came() -> None:
    """An unfinished run of schema 6 goes on; one that has an average is another run."""

    def identified(**settings: Any) -> str:
        config = made()
        training = TrainingRecord(**{**config.resolved.training.to_json(), **settings})  # type: ignore[union-attr]
        return config.model_copy(update={"resolved": config.resolved.model_copy(update={"training": training})}).run_id

    assert identified(ema_decay=0.0, ema_every=1) == identified()
    assert identified(ema_decay=0.5, ema_every=1) != identified()
