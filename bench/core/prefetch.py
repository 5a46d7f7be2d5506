"""Loading the next item while the caller works on one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def prefetched(load: Callable[[Item], Loaded], items: Iterable[Item]) -> Iterator[tuple[Item, Loaded]]:
    """Items in order, each with what ``load`` returns for it; the next one is loaded in a thread meanwhile.

    At most one item is loaded ahead.  What ``load`` raises is raised when its item is due, after the caller's work on the
    one before.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming: tuple[Item, Future[Loaded]] | None = None
        for item in items:
            present, coming = coming, (item, thread.submit(load, item))
            if present is not None:
                yield present[0], present[1].result()
        if coming is not None:
            yield coming[0], coming[1].result()
