"""Every command that the pages show has the commands, options and settings that it uses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pages import DOCS, ROOT

from bench import ALGORITHMS, GenerationSettings, TrainingSettings
from bench.cli.main import app
from bench.records.config import CHOICE

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
COMMAND = re.compile(r"(?:^ {4}|`|&& |-m )(bench [a-z-][^`\n]*)")
"""Of an indented block, of text in backticks, and after another command."""


def commands(page: Path) -> Iterator[list[str]]:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        for found in COMMAND.finditer(line):
            for command in re.split(r" && ", found[1].strip()):
                if command.startswith("bench "):
                    yield shlex.split(command, comments=True)[1:]


def setting_names() -> set[str]:
    fields = {name for entry in ALGORITHMS for name in ALGORITHMS.get(entry).model_fields}
    return fields | set(TrainingSettings.model_fields) | {CHOICE}


def problems(words: list[str], known_settings: set[str]) -> Iterator[str]:
    """What of a command does not exist."""
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands") and words and not words[0].startswith("-") and words != ["..."]:
        yield f"no command {words[0]}"
    options = {name for parameter in command.params for name in parameter.opts if name.startswith("-")} | {"--help"}
    for place, word in enumerate(words):
        if word.startswith("-") and word.partition("=")[0] not in options:
            yield f"no option {word}"
        known = {"--set": known_settings, "--image": set(GenerationSettings.model_fields)}.get(word)
        if (
            known
            and place + 1 < len(words)
            and (field := re.match(r"(\w+)[.=]", words[place + 1]))
            and field[1] not in known
        ):
            yield f"no field {field[1]} of {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    known = setting_names()
    wrong = {" ".join(words): found for words in commands(page) if (found := list(problems(list(words), known)))}
    assert not wrong


def test_what_does_not_exist_is_found() -> None:
    known = setting_names()
    assert list(problems(shlex.split("run --algo dpo --model tiny --colour red"), known)) == ["no option --colour"]
    assert next(problems(shlex.split("rum --algo dpo"), known)) == "no command rum"
    assert list(problems(shlex.split("run --set bacth=3 --image stpes=3"), known)) == [
        "no field bacth of --set",
        "no field stpes of --image",
    ]
