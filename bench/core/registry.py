"""Registries of algorithms, metrics and models: entry points, the same for built-in entries and plug-ins."""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from bench.core.errors import UserError, did_you_mean

DISTRIBUTION = "diffusion-alignment-bench"

T = TypeVar("T")


class Interface(abc.ABC):
    """What the entries of a registry must be.

    Args:
        base: their class.
        states: attributes that every entry must have, each with the class of its value.
    """

    def __init__(self, base: type, **states: type) -> None:
        self.base, self.states = base, states

    @abc.abstractmethod
    def complaint(self, entry: object) -> str | None:
        """Why an entry does not fit, as the end of a sentence ``X ...``; None if it fits."""

    def unstated(self, entry: object) -> str | None:
        """The first attribute that is missing or of another class, as the end of a sentence ``X ...``; None if all fit."""
        for attribute, wanted in self.states.items():
            if not hasattr(entry, attribute):
                return f"states no {attribute}"
            if not isinstance(getattr(entry, attribute), wanted):
                return f"states {attribute} as {getattr(entry, attribute)!r}, not as {public_name(wanted)}"
        return None


class ClassOf(Interface):
    """A subclass without abstract methods."""

    def complaint(self, entry: object) -> str | None:
        if not (isinstance(entry, type) and issubclass(entry, self.base)):
            return f"is not a subclass of {public_name(self.base)}"
        undefined = ", ".join(sorted(getattr(entry, "__abstractmethods__", ())))
        return f"does not define {undefined}" if undefined else self.unstated(entry)


class InstanceOf(Interface):
    """An instance of the class."""

    def complaint(self, entry: object) -> str | None:
        if not isinstance(entry, self.base):
            return f"is not a {public_name(self.base)}"
        return self.unstated(entry)


def public_name(cls: type) -> str:
    """What messages call a class: ``bench.Algorithm`` for one of this package, the plain name for one of Python's."""
    package = cls.__module__.partition(".")[0]
    return cls.__name__ if package in ("builtins", "collections") else f"{package}.{cls.__name__}"


class Registry(Generic[T]):
    """Named things of one kind, declared in an entry-point group and imported at their first use.

    Args:
        group: the entry-point group, for example ``bench.algorithms``.
        kind: what one entry is called in messages, for example ``algorithm``.
        interface: what an entry must be.
        made: entries that are made from a name of two parts, such as ``fitted:FOLDER``: by the part before the colon the function,
            as ``module:name``, that makes the entry from what follows.  They are not listed.
    """

    def __init__(self, group: str, kind: str, interface: Interface, made: Mapping[str, str] | None = None) -> None:
        self.group, self.kind, self.interface, self._made = group, kind, interface, made or {}

    @functools.cached_property
    def _points(self) -> Mapping[str, list[EntryPoint]]:
        points: dict[str, list[EntryPoint]] = {}
        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            others = points.setdefault(point.name, [])
            if all((point.value, origin(point)) != (other.value, origin(other)) for other in others):
                others.append(point)
        return points

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __contains__(self, name: object) -> bool:
        return name in self._points

    def _is_made(self, name: str) -> bool:
        """Whether the part of a name before a colon is that of a factory, which makes an entry of the rest."""
        first, colon, _ = name.partition(":")
        return bool(colon) and first in self._made

    def point(self, name: str) -> EntryPoint:
        """The entry point called ``name``, not imported.

        Raises:
            UserError: no entry has that name, or entries of two distributions have it.
        """
        if self._is_made(name):
            return EntryPoint(name, self._made[name.partition(":")[0]], self.group)
        points = self._points.get(name)
        if points is None:
            hint = did_you_mean(name, self._points)
            raise UserError(f"unknown {self.kind} {name!r}: {hint}there are {', '.join(self._points) or 'none'}")
        if len(points) > 1:
            owners = " and ".join(f"{origin(point)} ({point.value})" for point in points)
            raise UserError(f"two entries are called {self.kind} {name!r}: {owners}; uninstall one of them")
        return points[0]

    def candidates(self, name: str) -> list[EntryPoint]:
        """Every entry point of that name; more than one is a conflict that `point` refuses."""
        return self._points[name]

    def get(self, name: str) -> T:
        """The entry called ``name``; what its import raises is passed on unchanged.

        Raises:
            UserError: no entry has that name, or two have it, or the entry does not fit the interface.
        """
        point = self.point(name)
        entry: T = point.load()(name.partition(":")[2]) if self._is_made(name) else point.load()
        if complaint := self.interface.complaint(entry):
            raise UserError(f"{self.kind} {name!r} of {origin(point)} is malformed: {point.attr} {complaint}")
        return entry

    def problem(self, name: str) -> BaseException | None:
        """Why the entry cannot be used, or None.  For listings, which show a broken plug-in instead of failing with it."""
        try:
            self.get(name)
        except Exception as error:  # noqa: BLE001 (a plug-in may raise anything; the listing shows it as it is)
            return error
        return None


def is_ours(point: EntryPoint) -> bool:
    """Whether this project declares an entry point."""
    return point.dist is not None and point.dist.name == DISTRIBUTION


def origin(point: EntryPoint) -> str:
    """Distribution and version that declare an entry point, for example ``my-plugin 1.0``."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"
