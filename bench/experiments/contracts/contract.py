"""A contract: one sentence, and the function that finds out whether it holds."""

from __future__ import annotations

import dataclasses
import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Literal, TypeVar

from bench.core.progress import without_progress

C = TypeVar("C")

LIBRARIES = frozenset({"bench", "torch", "pydantic", "diffusers", "transformers", "accelerate", "peft", "numpy", "PIL"})
"""Packages whose lines do not say where a plug-in failed."""

Check = Callable[[C], "str | None"]
"""Returns what was measured, in words, or None; raises `BrokenError` or `NotApplicableError`."""


class BrokenError(AssertionError):
    """A contract does not hold; the message says what was expected and what was found."""


class NotApplicableError(Exception):
    """A contract does not apply to this algorithm or metric; the message says why."""


def expect(holds: bool, expected: str, found: object) -> None:
    """Raise a `BrokenError` unless ``holds``.

    Args:
        expected: how the sentence continues after "expected".
        found: how it continues after "found".
    """
    if not holds:
        raise BrokenError(f"expected {expected}, found {found}")


@dataclasses.dataclass(frozen=True)
class Contract(Generic[C]):
    """One promise that an algorithm or a metric must keep.

    Attributes:
        check: finds out whether a case keeps the promise, which is the first paragraph of its docstring.
        settings: names of the settings in which it is checked, one after another; none if the promise is about the class.
    """

    check: Check[C]
    settings: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The name of its function."""
        return self.check.__name__

    @property
    def sentence(self) -> str:
        """The promise, without its full stop."""
        first = inspect.getdoc(self.check) or self.name
        return " ".join(first.partition("\n\n")[0].split()).removesuffix(".")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """The result of checking one contract.

    Attributes:
        sentence: the promise.
        outcome: whether it is kept.
        detail: what was measured; for a broken contract, what was expected and what was found; or why it does not apply.
    """

    sentence: str
    outcome: Literal["held", "broken", "not applicable"]
    detail: str


def look_at(contract: Contract[C], cases: Sequence[tuple[str, C]]) -> Finding:
    """Check one contract in every case, up to the first that breaks it.

    Args:
        cases: the cases to check, each with its name; an empty name is not mentioned.

    Returns:
        The finding; an exception in the algorithm or metric itself counts as broken, and the finding says where it was raised.
    """
    details: list[str] = []
    for where, case in cases:
        try:
            measured = contract.check(case)
        except NotApplicableError as reason:
            return Finding(contract.sentence, "not applicable", str(reason))
        except BrokenError as reason:
            return Finding(contract.sentence, "broken", _located(str(reason), where))
        except Exception as error:  # noqa: BLE001 (a plug-in may raise anything; the finding shows it as it is)
            return Finding(contract.sentence, "broken", _located(_raised(error), where))
        details += [_located(measured, where)] if measured else [where] if where else []
    return Finding(contract.sentence, "held", ", ".join(details))


def check_all(contracts: Sequence[Contract[C]], case: Callable[[str], C]) -> Iterator[Finding]:
    """Check contracts one after another, each in all its settings; each finding is yielded as soon as it is made.

    Args:
        case: makes the case for a setting; the empty name is for contracts without settings.
    """
    for contract in contracts:
        cases = [(setting, case(setting)) for setting in contract.settings or ("",)]
        with without_progress():
            finding = look_at(contract, cases)
        yield finding


def _located(text: str, where: str) -> str:
    return f"{where}: {text}" if where else text


def _raised(error: Exception) -> str:
    """The exception, and the line that raised it: the last one of the part itself where there is one."""
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [each for each in frames if each[0].f_globals.get("__name__", "").partition(".")[0] not in LIBRARIES]
    frame, line = (own or frames)[-1]
    return f"{type(error).__name__}: {error} ({frame.f_code.co_filename}, line {line})"
