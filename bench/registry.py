"""One way in for algorithms, metrics and models: entry points, ours and everybody else's alike."""

from __future__ import annotations

import abc
import difflib
import functools
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Generic, TypeVar

from bench.errors import UserError

if TYPE_CHECKING:
    from bench.algorithm import Algorithm
    from bench.metric import Metric
    from bench.models.card import ModelCard
    from bench.models.family import ModelFamily
    from bench.prompt_sets import PromptSet

DISTRIBUTION = "diffusion-alignment-bench"

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x' or 'y'? `` for the closest of ``known``, or nothing when none is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""


class Interface(abc.ABC):
    """What the entries of a registry must be; their base class is imported with the first entry, as it may take long.

    Args:
        base: the class, as ``module:name``.
        states: class by name of the attribute that must hold an instance of it, as ``module:name`` too.
    """

    def __init__(self, base: str, **states: str) -> None:
        self.base, self.states = base, states

    @property
    def name(self) -> str:
        """What messages call it, for example ``bench.Algorithm``."""
        return self.base.replace(":", ".")

    @abc.abstractmethod
    def complaint(self, entry: object) -> str | None:
        """The end of the sentence ``X ...`` that says why an entry is none of these; None when it is one."""

    def unstated(self, entry: object) -> str | None:
        """The end of the sentence ``X ...`` about the first attribute that is missing, or is something else."""
        for attribute, wanted in self.states.items():
            if not hasattr(entry, attribute):
                return f"states no {attribute}"
            if not isinstance(getattr(entry, attribute), pkgutil.resolve_name(wanted)):
                return f"states {attribute} as {getattr(entry, attribute)!r}, which is no {wanted.replace(':', '.').removeprefix('builtins.')}"
        return None


class ClassOf(Interface):
    """A subclass that leaves nothing abstract."""

    def complaint(self, entry: object) -> str | None:
        if not (isinstance(entry, type) and issubclass(entry, pkgutil.resolve_name(self.base))):
            return f"is no {self.name}"
        undefined = ", ".join(sorted(getattr(entry, "__abstractmethods__", ())))
        return f"does not define {undefined}" if undefined else self.unstated(entry)


class InstanceOf(Interface):
    """An object of the class."""

    def complaint(self, entry: object) -> str | None:
        if not isinstance(entry, pkgutil.resolve_name(self.base)):
            return f"is no {self.name}"
        return self.unstated(entry)


class Registry(Generic[T]):
    """Named things of one kind, announced through an entry-point group and imported when first asked for.

    Args:
        group: the entry-point group, for example ``bench.algorithms``.
        kind: what one entry is called in messages, for example ``algorithm``.
        interface: what an entry must be.
    """

    def __init__(self, group: str, kind: str, interface: Interface) -> None:
        self.group, self.kind, self.interface = group, kind, interface

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

    def point(self, name: str) -> EntryPoint:
        """The entry point called ``name``, not imported.

        Raises:
            UserError: no entry, or two of different distributions, have that name.
        """
        points = self._points.get(name)
        if points is None:
            hint = nearest(name, self._points)
            raise UserError(f"unknown {self.kind} {name!r}: {hint}there are {', '.join(self._points) or 'none'}")
        if len(points) > 1:
            owners = " and ".join(f"{origin(point)} ({point.value})" for point in points)
            raise UserError(f"two entries are called {self.kind} {name!r}: {owners}; uninstall one of them")
        return points[0]

    def candidates(self, name: str) -> list[EntryPoint]:
        """Every entry point of that name; more than one is a conflict that `point` refuses."""
        return self._points[name]

    def get(self, name: str) -> T:
        """The entry called ``name``; whatever its import raises is passed on as it is.

        Raises:
            UserError: no entry has that name, or two, or the entry is not what one of this kind must be.
        """
        point = self.point(name)
        entry: T = point.load()
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
    """Whether this project announced an entry point."""
    return point.dist is not None and point.dist.name == DISTRIBUTION


def origin(point: EntryPoint) -> str:
    """Distribution and version that announced an entry point, for example ``my-plugin 1.0``."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"


algorithms: Registry[type[Algorithm]] = Registry(
    "bench.algorithms",
    "algorithm",
    ClassOf(
        "bench:Algorithm", info="bench:AlgorithmInfo", needs="builtins:frozenset", recipes="collections.abc:Mapping"
    ),
)
metrics: Registry[type[Metric]] = Registry("bench.metrics", "metric", ClassOf("bench:Metric", info="bench:MetricInfo"))
models: Registry[ModelCard] = Registry("bench.models", "model", InstanceOf("bench.models.card:ModelCard"))
families: Registry[type[ModelFamily]] = Registry(
    "bench.families",
    "pipeline class",
    ClassOf("bench.models.family:ModelFamily", recipe="builtins:str", lora_targets="collections.abc:Sequence"),
)
prompts: Registry[PromptSet] = Registry("bench.prompts", "prompt set", InstanceOf("bench.prompt_sets:PromptSet"))
