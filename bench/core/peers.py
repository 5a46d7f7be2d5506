"""The processes of one launch watch each other: nobody waits for one that has ended, and one sentence says which that was.

Every process posts a sign of life each second in the launcher's store, which outlives the processes.  Whoever ends with an error
enters it there; the first one to do so speaks, and the others end in silence, with the same exit code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from bench.core import termination
from bench.core.progress import duration
from bench.core.signs import UNSEEN, Sign, Stage, here

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # exported, but not to type checkers

SECOND = 1.0
"""Time between two signs of life; every count below is of these, so that it stands still while this process is stopped itself."""
SILENT = 600
"""Signs of life that a process may miss before it counts as stopped for good; a library may hold Python up for minutes."""
NOTICE = 60
"""How long others are awaited before that is said, and said again after twice, four times, ... as long."""
LEFT = 60
"""How long a process is awaited that has ended without an error, since all end at about the same time."""
STOPPED = 10
"""Signs of life that a process has missed when the launcher is told to stop: it will not stop with the others."""
LOST = 8
"""Seconds in which the end of another process shows after the connection to it is lost."""
TOGETHER = 20
"""Seconds for which whoever ended first awaits the others; then the launcher ends them by signal, with codes of its own."""
FIRST = 2
"""Seconds for which a refusal is left to the main process, which usually has the same."""
END, SAID, FOLLOWS = "end", "said", "follows"
"""Keys in the store: which process ended first, with its exit code; whether it has spoken; which others end with it."""
AGAIN = "run the same command to continue"


class Watch:
    """This process's view of a launch.

    Args:
        rank: this process's number.
        count: number of processes.
        store: the launcher's, shared by all.
    """

    def __init__(self, rank: int, count: int, store: Store) -> None:
        self.rank, self.count, self._store = rank, count, store
        self.stage, self.meetings, self.turns = Stage.PREPARATION, 0, 0
        self._host, self._posted, self._left = here(), 0, False
        self._signs = dict.fromkeys(range(count), UNSEEN)
        self._missed = dict.fromkeys(range(count), 0)
        self._met, self._waited = 0, 0
        self._signal = 0
        self._suspect: int | None = None
        self._ending = threading.Lock()
        self._bell, self._ringer = socket.socketpair()
        self._ringer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)

    def start(self) -> None:
        """Post the first sign of life and begin to watch."""
        self.post()
        if threading.current_thread() is threading.main_thread():
            # A handler in Python does not run while the main thread waits for others; this tells the watch of a signal at once.
            signal.set_wakeup_fd(self._ringer.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def leave(self) -> None:
        """End without an error."""
        if self._left:
            return
        self._left = True
        with contextlib.suppress(RuntimeError):  # the launcher may have gone first
            self.post()
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)
        self._ringer.send(b"\0")
        self._thread.join()

    def end(self, code: int, text: str, *, refusal: bool = False) -> NoReturn:
        """End this process and the others with it; what is printed last is ``text``, or another process's if that ended first."""
        with self._ending, termination.deferred():  # both threads may come here
            dead = self._dead() if self._suspect is None else self._suspect
            if dead is not None:
                code, text = 1, self._about(dead, "was killed, for example for lack of memory")
            with contextlib.suppress(RuntimeError):  # without the launcher every process speaks for itself
                until = time.monotonic() + FIRST
                while refusal and self.rank and time.monotonic() < until and not self._store.check([END]):
                    time.sleep(0.05)
                mine = json.dumps([self.rank, code])
                first = self._store.compare_set(END, "", mine).decode()
                if first != mine:
                    self._follow(json.loads(first)[1])
            _write(text)
            with contextlib.suppress(RuntimeError):
                self._store.set(SAID, "1")
                self._await_followers()
            _exit(code)

    def lost(self) -> bool:
        """Whether another process has ended, or does within `LOST` seconds."""
        until = time.monotonic() + LOST
        with contextlib.suppress(RuntimeError):
            while time.monotonic() < until:
                if self._store.check([END]) or self._dead() is not None:
                    return True
                time.sleep(0.05)
        # of a process on another machine there is only its silence
        mute = [rank for rank in self._others() if self._running(rank) and self._missed[rank] >= LOST // 2]
        self._suspect = mute[0] if mute else None
        return bool(mute)

    def until_main(self) -> None:
        """Wait until the main process has come here too, for as long as its stage allows."""
        self.turns += 1
        self.meetings += 1
        key = f"turn {self.turns}"
        if self.rank == 0:
            self._store.set(key, "1")
            return
        while not self._store.check([key]):
            time.sleep(0.05)

    def until_all(self) -> None:
        """Wait until every process has come here too, for as long as its stage allows."""
        self.turns += 1
        self.meetings += 1
        keys = [f"turn {self.turns} of {rank}" for rank in range(self.count)]
        self._store.set(keys[self.rank], "1")
        while not self._store.check(keys):
            time.sleep(0.05)

    def _follow(self, code: int) -> NoReturn:
        """End in silence once the process that ended first has spoken."""
        until = time.monotonic() + LOST
        while time.monotonic() < until and not self._store.check([SAID]):
            time.sleep(0.05)
        self._store.set(f"{FOLLOWS} {self.rank}", "1")
        _exit(code)

    def _await_followers(self) -> None:
        """Wait until every other process is about to end too, or cannot: a launcher ends those that remain once one has ended."""
        until = time.monotonic() + TOGETHER
        awaited = set(self._others())
        while awaited and time.monotonic() < until:
            self._signs.update({rank: self._read(rank) for rank in awaited})
            awaited -= {rank for rank in awaited if self._store.check([f"{FOLLOWS} {rank}"])}
            awaited -= {rank for rank in awaited if self._missed[rank] >= STOPPED or self._signs[rank].gone(self._host)}
            time.sleep(0.05)

    def _run(self) -> None:
        # without the launcher's store there is nothing to be seen; a collective operation then fails by itself
        with contextlib.suppress(RuntimeError):
            while True:
                self._listen()
                if self._left:
                    return
                self.post()
                if self._store.check([END]):
                    with self._ending:
                        self._follow(json.loads(self._store.get(END))[1])
                self._look()
                self._judge()

    def _listen(self) -> None:
        """Sleep, and note a signal that has come meanwhile."""
        ready, _, _ = select.select([self._bell], [], [], SECOND)
        if ready:
            came = [number for number in self._bell.recv(64) if number in (signal.SIGINT, signal.SIGTERM)]
            self._signal = came[-1] if came else self._signal

    def post(self) -> None:
        """Post a sign of life."""
        self._posted += 1
        sign = Sign(self._posted, self.stage.name, self.meetings, self._host, os.getpid(), self._left)
        self._store.set(str(self.rank), json.dumps(dataclasses.astuple(sign)))

    def _look(self) -> None:
        """Read the others' signs of life."""
        for rank in self._others():
            seen = self._read(rank)
            self._missed[rank] = 0 if seen.number != self._signs[rank].number else self._missed[rank] + 1
            self._signs[rank] = seen

    def _read(self, rank: int) -> Sign:
        key = str(rank)
        return Sign(*json.loads(self._store.get(key))) if self._store.check([key]) else UNSEEN

    def _judge(self) -> None:
        """End if another process has ended, is silent, or is awaited for longer than its stage allows."""
        dead = self._dead()
        if dead is not None:
            self.end(1, "")  # which says it
        silent = [rank for rank in self._others() if self._missed[rank] >= SILENT and self._running(rank)]
        if silent:
            self.end(1, self._about(silent[0], f"has not answered for {duration(self._missed[silent[0]])}"))
        behind = [rank for rank in self._others() if self._signs[rank].meetings < self.meetings]
        stuck = [rank for rank in behind if self._missed[rank] >= STOPPED]
        if self._signal and stuck:
            by = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[signal.Signals(self._signal)]
            self.end(128 + self._signal, f"stopped by {by}, {self._whose(stuck[0])} does not answer; {AGAIN}")
        self._waited = self._waited + 1 if behind and self._met == self.meetings else 0
        self._met = self.meetings
        if behind:
            self._wait_for(behind[0], first=all(rank in behind for rank in range(self.rank)))

    def _wait_for(self, rank: int, *, first: bool) -> None:
        sign = self._signs[rank]
        stage = Stage[sign.stage]
        if self._waited > (LEFT if sign.left else stage.seconds):
            said = "has ended" if sign.left else f"is awaited for {duration(self._waited)}, too long for {stage.title}"
            self.end(1, self._about(rank, said))
        doubled, rest = divmod(self._waited, NOTICE)
        if first and doubled and not rest and doubled & (doubled - 1) == 0:
            missed = self._missed[rank]
            mute = f"; it has not answered for {duration(missed)}" if missed >= STOPPED else ""
            _write(f"waiting: {duration(self._waited)} so far for {self._whose(rank)}{mute}")

    def _dead(self) -> int | None:
        """A process on this machine that is not there any more, and has not ended by itself."""
        for rank in self._others():
            if self._running(rank) and self._signs[rank].gone(self._host):
                with contextlib.suppress(RuntimeError):
                    self._signs[rank] = self._read(rank)
                if self._running(rank):
                    return rank
        return None

    def _running(self, rank: int) -> bool:
        return self._signs[rank] != UNSEEN and not self._signs[rank].left

    def _others(self) -> list[int]:
        return [rank for rank in range(self.count) if rank != self.rank]

    def _whose(self, rank: int) -> str:
        return f"process {rank} of {self.count} ({Stage[self._signs[rank].stage].title})"

    def _about(self, rank: int, what: str) -> str:
        return f"error: {self._whose(rank)} {what}; {AGAIN}"


def _write(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _exit(code: int) -> NoReturn:
    """End at once: what Python and libraries do at the end of a process waits for the others, and prints below the last line."""
    sys.stdout.flush()
    os._exit(code)
