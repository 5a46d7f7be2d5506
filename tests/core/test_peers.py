"""Processes that watch each other through a launcher's store: who ends, who is told, and what is said."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import forked
import peering
import pytest
from torch.distributed import TCPStore

from bench.core.signs import LONGEST_WORK, Stage

PATIENCE = 60


@dataclasses.dataclass
class Launch:
    """Processes with one store."""

    folder: Path
    processes: dict[int, object] = dataclasses.field(default_factory=dict)

    def start(self, *acts: str) -> None:
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        for rank, act in enumerate(acts):
            args = (rank, len(acts), self.store.port, act, str(self.folder / "spoken"))
            self.processes[rank] = forked.started().Process(target=peering.peer, args=args)
            self.processes[rank].start()
        until = time.monotonic() + PATIENCE
        while not self.store.check([str(rank) for rank in self.processes]) and time.monotonic() < until:
            time.sleep(0.05)

    def signal(self, rank: int, number: signal.Signals) -> None:
        os.kill(self.processes[rank].pid, number)

    def ended(self, *ranks: int) -> tuple[list[int], list[str]]:
        """The exit codes of some processes, which must end, and the lines that all have printed, without those of waiting."""
        for rank in ranks:
            self.processes[rank].join(PATIENCE / 2)
        return [self.processes[rank].exitcode for rank in ranks], [
            line for line in self.spoken() if not line.startswith("waiting: ")
        ]

    def spoken(self) -> list[str]:
        return (self.folder / "spoken").read_text().splitlines()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    launched = Launch(tmp_path)
    yield launched
    for process in launched.processes.values():
        process.kill()
        process.join()


def test_of_a_killed_process_the_others_say_once_which_it_was(launch: Launch) -> None:
    launch.start("works", "works", "waits")
    time.sleep(0.5)
    launch.signal(1, signal.SIGKILL)
    codes, said = launch.ended(0, 2)
    assert codes == [1, 1]
    assert said == [
        "error: process 1 of 3 (training) was killed, for example for lack of memory; run the same command to continue"
    ]


def test_whoever_breaks_speaks_and_the_others_end_with_it(launch: Launch) -> None:
    launch.start("works", "breaks", "waits")
    assert launch.ended(0, 1, 2) == ([1, 1, 1], ["error: it broke"])


def test_a_refusal_by_all_is_printed_once_by_the_main_process(launch: Launch) -> None:
    launch.start("refuses", "refuses", "refuses")
    assert launch.ended(0, 1, 2) == ([2, 2, 2], ["error: no such thing, says 0"])


def test_a_refusal_by_one_ends_all_with_its_code(launch: Launch) -> None:
    launch.start("works", "refuses")
    assert launch.ended(0, 1) == ([2, 2], ["error: no such thing, says 1"])


def test_of_a_process_that_does_not_answer_the_others_say_so_and_end(launch: Launch) -> None:
    launch.start("waits", "works")
    time.sleep(0.5)
    launch.signal(1, signal.SIGSTOP)
    (code,), said = launch.ended(0)
    assert code == 1
    assert re.fullmatch(
        r"error: process 1 of 2 \(training\) has not answered for \d+ s; run the same command to continue", said[0]
    )
    assert re.fullmatch(
        r"waiting: 10 s so far for process 1 of 2 \(training\)(; it has not answered for \d+ s)?", launch.spoken()[0]
    )


def test_a_process_that_goes_on_in_time_ends_nothing(launch: Launch) -> None:
    launch.start("works", "leaves", "works")
    time.sleep(0.5)
    launch.signal(0, signal.SIGSTOP)
    time.sleep(1)
    launch.signal(0, signal.SIGCONT)
    time.sleep(1)
    assert launch.ended(1) == ([0], [])
    assert launch.processes[0].is_alive()
    assert launch.processes[2].is_alive()


def test_a_launch_that_was_stopped_as_a_whole_goes_on(launch: Launch) -> None:
    launch.start("works", "works")
    time.sleep(0.5)
    for rank in (0, 1):
        launch.signal(rank, signal.SIGSTOP)
    time.sleep(5)  # longer than SILENT
    for rank in (0, 1):
        launch.signal(rank, signal.SIGCONT)
    time.sleep(1)
    assert all(process.is_alive() for process in launch.processes.values())


def test_a_wait_is_said_and_ends_at_the_limit_of_the_stage(launch: Launch) -> None:
    launch.start("waits", "waits", "leaves")
    codes, said = launch.ended(0, 1)
    assert codes == [1, 1]
    assert said == ["error: process 2 of 3 (preparation) has ended; run the same command to continue"]
    waiting = [line for line in launch.spoken() if line not in said]
    assert waiting[0].startswith("waiting: 10 s so far for process 2 of 3 (preparation)")
    assert len(waiting) <= 2


def test_all_wait_until_the_last_one_has_come(launch: Launch) -> None:
    launch.start("comes", "lingers", "comes")
    assert launch.ended(0, 1, 2) == ([0, 0, 0], ["here too", *["all are here"] * 3])


def test_who_waits_for_all_ends_with_whoever_breaks(launch: Launch) -> None:
    launch.start("comes", "breaks", "comes")
    assert launch.ended(0, 1, 2) == ([1, 1, 1], ["error: it broke"])


def test_sigterm_is_answered_although_another_process_is_stopped(launch: Launch) -> None:
    launch.start("waits", "works")
    time.sleep(0.5)
    launch.signal(1, signal.SIGSTOP)
    launch.signal(0, signal.SIGTERM)
    (code,), said = launch.ended(0)
    assert code == 143
    assert said == ["stopped by SIGTERM, process 1 of 2 (training) does not answer; run the same command to continue"]


def test_a_lost_connection_is_blamed_on_who_ended(launch: Launch) -> None:
    launch.start("loses", "breaks")
    codes, said = launch.ended(0, 1)
    assert codes == [1, 1]
    assert said == ["error: it broke"]


def test_every_stage_has_a_limit_and_only_preparation_takes_days() -> None:
    days = [stage for stage in Stage if stage.seconds >= 24 * 3600]
    assert days == [Stage.PREPARATION]
    assert max(stage.seconds for stage in Stage if stage not in days) == LONGEST_WORK
