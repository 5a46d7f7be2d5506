"""Experiment files: TOML that is read into a `Study`, with the line of whatever is wrong."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bench.core.errors import UserError, nearest_or_all
from bench.core.inputs import read_text
from bench.core.validation import reason
from bench.experiments.configurations import ALL
from bench.experiments.executors.base import Executor
from bench.experiments.study import AlgorithmEntry, Study
from bench.training.settings import TrainingSettings

MOST_BYTES = 1 << 20
"""Bytes of the largest experiment file."""
LONG_NAME = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}""")
"""A dotted name of more parts than any field has; a TOML reader takes minutes for one of 20,000."""
AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")
"""How the TOML reader says where it stopped; at the end of the file it says so instead."""
MOST_READ = 1 << 22
"""Bytes that are read at most to find the line of an error, which reads the file as often as it has lines."""


class LocatedError(UserError):
    """A `UserError` that says where in a file it is."""


class StudyFile:
    """The text of an experiment file and what it says.

    Args:
        path: the file.

    Attributes:
        path: the file.
        document: its content.

    Raises:
        UserError: there is no such file, or it is not TOML; the sentence has the line.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"there is no experiment file {path}; give one, or --algo and --model")
        self.path = path
        self._overridden: set[tuple[str | int, ...]] = set()
        try:
            self._lines = read_text(path, encoding="utf-8-sig", most=MOST_BYTES).splitlines(keepends=True)
            text = "".join(self._lines)
            if long := LONG_NAME.search(text):
                line = text.count("\n", 0, long.start()) + 1
                raise UserError(f"{path}, line {line}: a name of more than 64 parts; fields have at most three")
            self.document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or a number of thousands of digits
            raise UserError(_not_toml(path, str(error))) from error

    def override(self, typed: Mapping[str, Any]) -> dict[str, Any]:
        """The document with the values that the command line has in their place.

        Args:
            typed: fields of `Study`, and ``label``, which each of the file's algorithms is given; settings, images and columns
                replace single fields, algorithms choose among those of the file, and everything else replaces the file's value.
        """
        merged = dict(self.document)
        if "label" in typed:
            self._label(merged, typed["label"])
        for field, value in typed.items():
            if field == "label":
                continue
            there = merged.get(field)
            if field == "executor" and "name" in value and value["name"] != _executor(there):
                there = _of_every_executor(there)
            if isinstance(value, dict) and isinstance(there, dict):
                merged[field] = {**_without(there, value), **value}
                self._overridden |= {(field, name) for name in value}
            else:
                merged[field] = _chosen(value, there) if field == "algorithms" else value
                self._overridden.add((field,))
        if "settings" in typed:
            merged["algorithms"] = [
                {**entry, "settings": _without(entry["settings"], typed["settings"])}
                if isinstance(entry, dict) and isinstance(entry.get("settings"), dict)
                else entry
                for entry in merged.get("algorithms", [])
            ]
        return merged

    def _label(self, merged: dict[str, Any], label: str) -> None:
        """Give each algorithm of a document a label, which ``--name`` states; what is not an algorithm stays for its own error."""
        entries = merged.get("algorithms")
        if isinstance(entries, list):
            merged["algorithms"] = [
                {**entry, "label": label} if isinstance(entry, dict) else entry for entry in entries
            ]
            self._overridden |= {("algorithms", number, "label") for number in range(len(entries))}

    def study(self, typed: Mapping[str, Any]) -> Study:
        """The study of the file, with the command line's values in their place.

        Raises:
            UserError: a field is unknown, missing or not allowed; the sentence has file, line and the nearest name.
        """
        for place in _null_characters(self.document):
            with self.at(*place):
                name = [part for part in place if isinstance(part, str)][-1]
                raise UserError(f"{name} holds a null character, which no name and no path has; remove it")
        try:
            return Study.model_validate(self.override(typed))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            with self.at(*first["loc"]):
                raise UserError(_sentence(first)) from error
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error

    @contextlib.contextmanager
    def at(self, *place: str | int) -> Iterator[None]:
        """Put the file and the line of a place before the sentence of a `UserError` in the block.

        Args:
            place: keys and indices that lead to the value, for example ``"algorithms", 0, "settings", "beta"``; of a value that
                the command line replaced nothing is said.
        """
        try:
            yield
        except LocatedError:
            raise
        except UserError as error:
            stated = self._stated(place)
            if {stated[:1], stated[:2], stated[:3]} & self._overridden:
                raise LocatedError(str(error)) from error
            line = self.line(stated)
            where = f"{self.path}, line {line}" if line else str(self.path)
            raise LocatedError(f"{where}: {error}") from error

    def _stated(self, place: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """A place, or of a setting that an algorithm has from all, its place there."""
        if place[2:3] == ("settings",) and not _holds(self.document, place):
            return place[2:]
        return place

    def line(self, place: Sequence[str | int]) -> int | None:
        """The line on which the statement begins that sets a value, counted from 1; None if no statement does, or if the file is long.

        The first lines of the file that are TOML on their own and hold the value end with that statement.  Of a key that is not
        there the line is that of the table that should hold it.
        """
        if len(self._lines) * sum(map(len, self._lines)) > MOST_READ:
            return None
        for length in range(len(place), 0, -1):
            begin = 0
            for end in range(1, len(self._lines) + 1):
                try:
                    document = tomllib.loads("".join(self._lines[:end]))
                except tomllib.TOMLDecodeError:
                    continue
                if _holds(document, place[:length]):
                    between = enumerate(self._lines[begin:end], start=begin + 1)
                    return next(
                        number for number, text in between if text.strip() and not text.lstrip().startswith("#")
                    )
                begin = end
        return None


def _not_toml(path: Path, why: str) -> str:
    """One sentence about a file that is not TOML, with the line if the reader states it."""
    advice = "see docs/experiments.md for an example"
    if (stated := AT_LINE.search(why)) is None:
        return f"{path} is not a TOML file ({why}); {advice}"
    return f"{path}, line {stated[1]}: this is not TOML ({why[: stated.start()]}, at column {stated[2]}); {advice}"


def _null_characters(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of texts with a null character, on which the system's functions for files fail."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _null_characters(inner, (*place, key))
    elif isinstance(value, str) and "\0" in value:
        yield place


def _executor(stated: Any) -> Any:
    return stated.get("name") if isinstance(stated, dict) else stated


def _of_every_executor(stated: Any) -> dict[str, Any]:
    """What a file states of an executor that another one has too."""
    return (
        {field: stated[field] for field in Executor.model_fields if field in stated} if isinstance(stated, dict) else {}
    )


def _chosen(typed: Sequence[Mapping[str, Any]], there: Any) -> list[Any]:
    """The file's entries of the algorithms that were typed, with the label that was typed, and new entries for others.

    ``all`` in the file is an entry of every algorithm that has no other there; typed, it is every entry of the file and all other algorithms.
    """
    entries = [entry for entry in there or [] if isinstance(entry, dict)] if isinstance(there, list) else []
    chosen: list[Any] = []
    there_too, named = {entry.get("name") for entry in entries}, {each["name"] for each in typed}
    for each in typed:
        if each["name"] == ALL:
            label = {field: value for field, value in each.items() if field != "name"}
            chosen += [{**entry, **label} for entry in entries if entry.get("name") not in named - {ALL}]
            chosen += [] if ALL in there_too else [dict(each)]
        else:
            like = each["name"] if each["name"] in there_too else ALL
            same = [{**entry, **each} for entry in entries if entry.get("name") == like]
            chosen += same or [dict(each)]
    return chosen


def _without(settings: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the file without those that were typed, however the file spells them."""
    kept: dict[str, Any] = {}
    for field, value in settings.items():
        if isinstance(value, dict):
            kept[field] = {part: inner for part, inner in value.items() if f"{field}.{part}" not in typed}
        elif field not in typed:
            kept[field] = value
    return kept


def _holds(document: Any, place: Sequence[str | int]) -> bool:
    """Whether a place is in a document; ``budget.unit`` is also looked for as ``unit`` in ``budget``."""
    for number, part in enumerate(place):
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, dict) and isinstance(part, str) and "." in part:
            return _holds(document, [*part.split("."), *place[number + 1 :]])
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            return False
    return True


def _sentence(error: ErrorDetails) -> str:
    """One sentence about a value that is not allowed: its name, what it is, and what it may be."""
    place, why = error["loc"], reason(error)
    field = ".".join(str(part + 1) if isinstance(part, int) else part for part in place)
    model: type[BaseModel] = AlgorithmEntry if place[:1] == ("algorithms",) and len(place) > 1 else Study
    if error["type"] == "extra_forbidden":
        name = str(place[-1])
        if model is AlgorithmEntry and name in Study.model_fields:
            return f"{name} is a field of the whole file; move it above the first [table]"
        if name in TrainingSettings.model_fields:
            return f"{name} is a setting; write it below [settings], or in the settings = {{ ... }} of one algorithm"
        return f"there is no field {name!r}: {nearest_or_all(name, model.model_fields)}"
    if error["type"] == "missing":
        return f"{field} is missing; add it: {model.model_fields[str(place[-1])].description}"
    if not field or isinstance(error["input"], dict | BaseModel):
        return f"{field}: {why}" if field else why
    return f"{field} = {_shown(error['input'])} is not allowed: {why}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
