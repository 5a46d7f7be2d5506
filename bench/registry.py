"""One way in for algorithms, metrics and models: entry points, ours and everybody else's alike."""

from __future__ import annotations

import difflib
import functools
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

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x' or 'y'? `` for the closest of ``known``, or nothing when none is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""


class Registry(Generic[T]):
    """Named things of one kind, announced through an entry-point group and imported when first asked for.

    Args:
        group: the entry-point group, for example ``bench.algorithms``.
        kind: what one entry is called in messages, for example ``algorithm``.
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group, self.kind = group, kind

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
        """The entry called ``name``; whatever its import raises is passed on as it is."""
        entry: T = self.point(name).load()
        return entry

    def problem(self, name: str) -> BaseException | None:
        """Why the entry cannot be used, or None.  For listings, which show a broken plug-in instead of failing with it."""
        try:
            self.get(name)
        except Exception as error:  # noqa: BLE001 (a plug-in may raise anything; the listing shows it as it is)
            return error
        return None


def origin(point: EntryPoint) -> str:
    """Distribution and version that announced an entry point, for example ``my-plugin 1.0``."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"


algorithms: Registry[type[Algorithm]] = Registry("bench.algorithms", "algorithm")
metrics: Registry[type[Metric]] = Registry("bench.metrics", "metric")
models: Registry[ModelCard] = Registry("bench.models", "model")
families: Registry[type[ModelFamily]] = Registry("bench.families", "pipeline class")
prompts: Registry[PromptSet] = Registry("bench.prompts", "prompt set")
