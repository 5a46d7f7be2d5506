"""How the commands of the tiny world, ``python -m bench.tiny.NAME``, end where they refuse."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import typer
from rich.markup import escape

from bench.core.errors import UserError
from bench.core.terminal import Terminal

P = ParamSpec("P")


def refusing(command: Callable[P, None]) -> Callable[P, None]:
    """A command that ends with one sentence on standard error and exit code 2 where it raises a `UserError`."""

    @functools.wraps(command)
    def ending(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            command(*arguments, **options)
        except UserError as error:
            Terminal(stderr=True).print(f"error: {escape(str(error))}", highlight=False)
            raise typer.Exit(2) from error

    return ending
