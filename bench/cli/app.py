"""How commands are parsed: what is mistyped gets one sentence, whichever command it is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from bench.core.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Any])


LISTS = ("algo", "seeds")
"""Parameters that list what is run: who gives one of them twice wants both.  Of every other option the last value counts, as in most
programs, so that a script can change what it was given."""


class Command(TyperCommand):
    """A command whose lists of what is run are given once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer's own class of contexts has no public name
        """Parse a command line.

        Raises:
            UserError: algorithms or seeds are given twice, of which the parser would take the last.
        """
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for option in order:
            if option.name in LISTS and (times := order.count(option)) > 1:
                raise UserError(
                    f"{option.opts[0]} is given {times} times; give it once, with commas between the values"
                )
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """Commands of this kind."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = Command, **choices: Any
    ) -> Callable[[Function], Function]:
        """As `typer.Typer.command`."""
        return super().command(name, cls=cls, **choices)


class Commands(TyperGroup):
    """The commands; a value that is not allowed gets a sentence like every other mistake."""

    def invoke(self, ctx: Any) -> Any:  # typer's own class of contexts has no public name
        """Parse the command's options and run it.

        Raises:
            UserError: an option's value is not allowed.
        """
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if (sentence := _about_value(error)) is None:
                raise
            raise UserError(sentence) from error


def _about_value(error: typer.BadParameter) -> str | None:
    """One sentence about a value that its option's type does not allow; None about anything else, of which typer speaks."""
    from pydantic import ValidationError

    from bench.core.validation import reason

    if error.param is None or not error.message:  # a value that is missing has no message
        return None
    option, refused = error.param.opts[0], error.__cause__
    if isinstance(refused, ValidationError):
        first = refused.errors(include_url=False)[0]
        return f"{option} {first['input']!r} is not allowed: {reason(first)}"
    return f"{option} is not allowed: {error.message.rstrip('.')}"  # of an older typer, whose message quotes the value
