"""Experiment files that are written from a `Study`, and their schema."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from bench.core.errors import UserError
from bench.core.files import replace_file
from bench.experiments.executors.base import EXECUTORS
from bench.experiments.interface import as_overrides
from bench.experiments.study import Study
from bench.records.protocol import GenerationSettings


def toml_text(study: Study) -> str:
    """A study as an experiment file, with the fields that differ from their defaults."""
    given = study.model_dump(mode="json", exclude_defaults=True)
    plain = {field: value for field, value in given.items() if not isinstance(value, dict) and field != "algorithms"}
    lines = [f"{field} = {_toml(value)}" for field, value in plain.items()]
    for field, value in given.items():
        if isinstance(value, dict):
            lines += ["", f"[{field}]", *_pairs(_readable(field, value))]
    for entry in given["algorithms"]:
        lines += ["", "[[algorithms]]", *_pairs({key: value for key, value in entry.items() if key != "settings"})]
        if entry.get("settings"):
            lines += ["[algorithms.settings]", *_pairs(_typed(entry["settings"]))]
    return "\n".join(lines).lstrip() + "\n"


def schema_text() -> str:
    """The JSON Schema of experiment files, with which editors complete and check them."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_study(study: Study, path: Path) -> None:
    """Write an experiment file; another file of that name is not overwritten.

    Raises:
        UserError: the file exists, or cannot be written.
    """
    if path.exists():
        raise UserError(f"{path} exists; give --save another name, or remove the file")
    replace_file(path, lambda partial: partial.write_text(toml_text(study), encoding="utf-8"))


def _readable(field: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
    """A table of a study with texts of the command line as numbers and truth values, where these are read as the same."""
    if field == "settings":
        return _typed(table)
    if field == "images":
        return _typed_for(GenerationSettings, table)
    return _typed_for(EXECUTORS.get(table["name"]), table) if field == "executor" else table


def _typed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Texts of the command line as the numbers and truth values that are spelled like them."""
    return {field: _plain(value) if isinstance(value, str) else value for field, value in settings.items()}


def _typed_for(kind: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """The same where a model's field holds a number or a truth value; an account that is called 1234 stays a text."""
    return {
        field: value if _reads_alike(kind, field, values[field], value) else values[field]
        for field, value in _typed(values).items()
    }


def _reads_alike(kind: type[BaseModel], field: str, text: Any, value: Any) -> bool:
    """Whether a field of a model is the same for both; not if there is no such field, or if it allows neither."""
    information = kind.model_fields.get(field)
    if information is None or information.annotation is None:
        return False
    alone = create_model("Alone", value=(information.annotation, information))
    try:
        return alone.model_validate({"value": text}) == alone.model_validate({"value": value})
    except ValidationError:
        return False


def _plain(text: str) -> Any:
    for kind in (int, float, {"true": True, "false": False}.__getitem__):
        with contextlib.suppress(ValueError, KeyError):
            value = kind(text)
            if as_overrides({"": value}) == {"": text} and text not in ("inf", "-inf", "nan"):
                return value
    return text


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_toml(value)}" for key, value in table.items()]


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _toml(value: Any) -> str:
    """A TOML value; JSON writes numbers, texts, truth values and lists the same way, up to the control character DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
