"""Several processes that share one job."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from bench.core import launched

T = TypeVar("T")


class Processes:
    """All processes that do one job; each of them must make every call.

    Args:
        accelerator: their connection; None for a single process.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        self.count: int = accelerator.num_processes if accelerator else 1
        self._index: int = accelerator.process_index if accelerator else 0

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes records."""
        return self._index == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of the items."""
        return items[self._index :: self.count]

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of items that are cheaper in order: as many that follow each other."""
        begin, end = (index * len(items) // self.count for index in (self._index, self._index + 1))
        return items[begin:end]

    @contextlib.contextmanager
    def together(self, held: AbstractContextManager[None]) -> Iterator[None]:
        """All processes run the block at the same time, and none goes on before all have; the main process holds ``held`` for them."""
        with held if self.main else contextlib.nullcontext():
            self._wait(launched.until_main)
            yield
            self._wait(launched.until_all)

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others, which wait for as long as the stage allows."""
        if not self.main:
            self._wait(launched.until_main)
        yield
        if self.main:
            self._wait(launched.until_main)

    def _wait(self, until: Callable[[], None]) -> None:
        """Wait for the others; a process that does a job alone has none, even if it was launched with others."""
        if self.count > 1:
            until()

    def from_main(self, make: Callable[[], T]) -> T:
        """What ``make`` returns in the main process, in every process; only the main process calls it."""
        if self.count == 1:
            return make()
        values = [make() if self.main else None]
        launched.until_main()
        broadcast_object_list(values)
        return values[0]  # type: ignore[return-value]

    def broadcast(self, flag: bool) -> bool:
        """The main process's ``flag``, in every process: it decides, since clocks and files may differ between processes."""
        return self.any(flag and self.main)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process."""
        if self._accelerator is None or self.count == 1:
            return flag
        flags = torch.tensor(int(flag), device=self._accelerator.device)
        return bool(self._accelerator.reduce(flags, reduction="sum").item())

    def gathered(self, values: Sequence[T]) -> list[T]:
        """The values of all processes, in the order of the processes."""
        if self.count == 1:
            return list(values)
        launched.meet()
        every: list[T] = gather_object(list(values))
        return every


ALONE = Processes()
