"""What each process of tests/core/test_peers.py does; a fork finds it here, as it would not find a test module."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from torch.distributed import TCPStore

from bench.core import peers
from bench.core.peers import Watch
from bench.core.signs import Stage

LIMITS = {
    "SECOND": 0.1, "SILENT": 30, "NOTICE": 10, "LEFT": 25, "STOPPED": 10, "LOST": 3, "FIRST": 1, "TOGETHER": 3,
}  # fmt: skip
"""Short ones, for a sign of life in every tenth of a second."""


def waits(watch: Watch) -> None:
    """Wait for the others in a place where Python runs no handler of signals, as in a collective operation."""
    watch.meetings += 1
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    time.sleep(60)


def works(watch: Watch) -> None:
    watch.stage = Stage.TRAINING
    watch.post()
    time.sleep(60)


def refuses(watch: Watch) -> None:
    watch.end(2, f"error: no such thing, says {watch.rank}", refusal=True)


def breaks(watch: Watch) -> None:
    watch.end(1, "error: it broke")


def leaves(watch: Watch) -> None:
    watch.leave()


def loses(watch: Watch) -> None:
    """Lose the connection to whoever ends."""
    watch.end(1, f"error: the connection is lost, {watch.lost()}")


def comes(watch: Watch) -> None:
    """Wait until all have come."""
    watch.until_all()
    os.write(1, b"all are here\n")
    watch.leave()


def lingers(watch: Watch) -> None:
    """Come later than others."""
    time.sleep(2)
    os.write(1, b"here too\n")
    comes(watch)


ACTS: dict[str, Callable[[Watch], None]] = {
    act.__name__: act for act in (waits, works, refuses, breaks, leaves, loses, comes, lingers)
}


def peer(rank: int, count: int, port: int, act: str, spoken: str) -> None:
    for name, value in LIMITS.items():
        setattr(peers, name, value)
    for number in (1, 2):
        os.dup2(os.open(spoken, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    store = TCPStore("127.0.0.1", port, is_master=False)
    watch = Watch(rank, count, store)
    watch.start()
    while not store.check([str(other) for other in range(count)]):
        time.sleep(0.05)
    time.sleep(0.3)  # each has seen the others
    ACTS[act](watch)
