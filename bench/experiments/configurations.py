"""What the user wants trained: configurations of algorithms, and the algorithms that ``all`` stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from bench.core.errors import UserError
from bench.experiments.recipes import unknown_field
from bench.training.algorithm import ALGORITHMS

ALL = "all"
"""In place of an algorithm's name: every registered one that can run and is not named beside it."""

Made = TypeVar("Made")


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """An algorithm as the user wants it trained.

    Attributes:
        algorithm: its registered name, or `ALL`.
        overrides: changes to its recipe, by field, as the command line has them.
        label: its name in tables and paths; None means the recipe's name, or a hash of the changes.
        place: the keys that lead to it in an experiment file; empty if it stands in none.
    """

    algorithm: str
    overrides: Mapping[str, str]
    label: str | None = None
    place: tuple[str | int, ...] = ()


def select(
    wanted: Sequence[Configuration], make: Callable[[Configuration], Made]
) -> tuple[list[tuple[Configuration, Made]], list[str]]:
    """What is made of each algorithm that is named, and of each one of `ALL` that can run.

    Args:
        wanted: configurations, in the order of the result.
        make: raises a `UserError` if a configuration of a single algorithm cannot run.

    Returns:
        Configurations of single algorithms, each with what was made of it; and sentences that say which algorithms of `ALL` cannot run,
        and why.

    Raises:
        UserError: an algorithm that is named cannot run, or none of `ALL` can.
    """
    named = {each.algorithm for each in wanted}
    chosen: list[tuple[Configuration, Made]] = []
    left_out: list[str] = []
    for each in wanted:
        if each.algorithm != ALL:
            chosen.append((each, make(each)))
            continue
        refused: list[tuple[str, str]] = []
        for one in (dataclasses.replace(each, algorithm=name) for name in ALGORITHMS if name not in named):
            try:
                chosen.append((one, _made(one, make)))
            except UserError as error:
                refused.append((one.algorithm, str(error)))
        left_out += _sentences(refused)
    if not chosen and left_out:
        raise UserError(f"no algorithm can run: {'; '.join(left_out)}")
    return chosen, left_out


def _made(one: Configuration, make: Callable[[Configuration], Made]) -> Made:
    """What ``make`` returns; without the list of all fields in its error, since most fields belong to a few algorithms."""
    if (field := unknown_field(ALGORITHMS.get(one.algorithm), one.overrides)) is not None:
        raise UserError(f"{one.algorithm} has no field {field!r}")
    return make(one)


def _sentences(refused: Iterable[tuple[str, str]]) -> list[str]:
    """One sentence per reason, which those share that differ in nothing but the algorithm's name.

    Args:
        refused: names of algorithms, each with why it cannot run.
    """
    alike: dict[str, list[tuple[str, str]]] = {}
    for name, reason in refused:
        alike.setdefault(reason.replace(name, ""), []).append((name, reason))
    return [
        f"{', '.join(name for name, _ in group)} {'is' if len(group) == 1 else 'are'} left out: {group[0][1]}"
        for group in alike.values()
    ]
