"""The watch that a launched process keeps on the others of its launch; nothing happens in a process alone."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import NoReturn

from bench.core.peers import Watch
from bench.core.ranks import count, rank
from bench.core.signs import Stage

CONNECTION = timedelta(minutes=10)
"""How long the launcher's store may take to answer."""
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


class _State:
    """This process's watch, once it has joined."""

    watch: Watch | None = None


_STATE = _State()


def join() -> None:
    """Watch the other processes of a launch from now on, and let them watch this one; nothing happens in a process alone."""
    if _STATE.watch is not None or count() == 1 or any(name not in os.environ for name in NEEDED):
        return
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]  # exported, but not to type checkers

    store, _, _ = next(iter(rendezvous("env://", timeout=CONNECTION)))
    _STATE.watch = Watch(rank(), count(), PrefixStore("bench", store))
    _STATE.watch.start()
    atexit.register(leave)


def joined() -> bool:
    """Whether other processes watch this one."""
    return _STATE.watch is not None


def leave() -> None:
    """End without an error, as far as the other processes are concerned."""
    if _STATE.watch is not None:
        _STATE.watch.leave()


def end(code: int, text: str, *, refusal: bool = False) -> NoReturn:
    """End this process and the others with the exit code; only the first one to end prints its text, below everything else.

    Args:
        refusal: the main process usually refuses the same, and then speaks.
    """
    if _STATE.watch is None:
        raise RuntimeError("this process has not joined others")
    _STATE.watch.end(code, text, refusal=refusal)


def lost() -> bool:
    """Whether another process has ended, which shows within seconds after the connection to it was lost."""
    return _STATE.watch is not None and _STATE.watch.lost()


def meet() -> None:
    """Note that this process has come to a point where it needs the others; every process must call it as often."""
    if _STATE.watch is not None:
        _STATE.watch.meetings += 1


def until_main() -> None:
    """Wait until the main process has made the same call, for as long as its stage allows; every process must make it."""
    if _STATE.watch is not None:
        _STATE.watch.until_main()


def until_all() -> None:
    """Wait until every process has made the same call, for as long as its stage allows; every process must make it."""
    if _STATE.watch is not None:
        _STATE.watch.until_all()


def stage() -> Stage:
    """What this process works on."""
    return Stage.PREPARATION if _STATE.watch is None else _STATE.watch.stage


@contextlib.contextmanager
def working(on: Stage) -> Iterator[None]:
    """Say what this process works on inside the block, which decides for how long the others wait for it."""
    watch = _STATE.watch
    if watch is None:
        yield
        return
    before, watch.stage = watch.stage, on
    watch.post()
    yield
    watch.stage = before  # not after an error, which is reported with the stage that it came from
