"""What is shown of long work, on a terminal and in a pipe, by real processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios

import pytest

from bench.core.progress import duration, line, shortened

WORK = """
import time
from bench.core.progress import Progress, part_of

with Progress("encoding pairs", total=30) as progress:  # all of it in the cache
    progress.found(20)
    progress.found(10)
with Progress("images of the base", total=5, done=5) as progress:  # all of them on disk
    pass
with part_of("run 2 of 4"):
    with Progress("imagereward of stable-diffusion-xl-base-1.0-0123abcd", total=6, done=2) as progress:
        for done in range(3, 7):
            time.sleep(0.3)
            progress.reach(done, loss=0.6931, margin=0.0001)
"""


def test_in_a_pipe_every_stage_that_was_worked_on_is_one_line_of_80_columns() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    (shown,) = done.stderr.splitlines()
    assert len(shown) <= 80
    assert re.fullmatch(r"run 2 of 4: \S+.*\.\.\..*0123abcd  6/6  in 1 s  \d\.\d/s  loss 0.6931.*", shown), shown
    assert done.stdout == ""


@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_shows_one_line_that_never_breaks(columns: int) -> None:
    shown = on_terminal(columns)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part) for part in re.split(r"[\r\n]", shown)]
    assert max(map(len, lines)) < columns
    assert (
        "\x1b[1A\x1b[2K\x1b[1A" not in shown
    )  # Rich goes up one row for each that it drew; two would be a broken line
    last = [each for each in lines if "6/6" in each][-1]
    assert last.startswith("run 2 of")
    assert "loss 0.6931" in last or columns == 40
    assert all("encoding pairs" not in each or "0/30" in each or "30/30" in each for each in lines)
    assert "images of the base" not in shown


def on_terminal(columns: int) -> str:
    """What `WORK` writes to a terminal of so many columns."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    shown = bytearray()
    with subprocess.Popen(
        [sys.executable, "-c", WORK], env={**environment, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    ):
        os.close(theirs)
        with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
            while piece := os.read(ours, 4096):
                shown += piece
    os.close(ours)
    return shown.decode()


def test_who_knows_the_rate_and_the_time_left_better_is_believed() -> None:
    work = """
from bench.core.progress import Progress

with Progress("runs", total=5) as progress:
    progress.found(1)
    progress.expect(222.9, 300)
    progress.advance(2, running=2)
with Progress("all overdue", total=2) as progress:
    progress.expect(222.9, 0)
    progress.advance(1, running=1)
"""
    done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "runs  3/5  5 min left  222.9 s each  running 2",
        "all overdue  1/2  222.9 s each  running 1",
    ]


def test_only_the_first_of_several_processes_speaks() -> None:
    for rank, lines in (("0", 1), ("1", 0)):
        environment = {**os.environ, "RANK": rank}
        done = subprocess.run([sys.executable, "-c", WORK], env=environment, capture_output=True, text=True, check=True)
        assert len(done.stderr.splitlines()) == lines


def test_a_line_drops_its_last_facts_before_its_title_is_unreadable() -> None:
    facts = ["120/2000", "12 min left", "2.5/s", "loss 0.6931"]
    assert line("training dpo", facts, 80) == "training dpo  120/2000  12 min left  2.5/s  loss 0.6931"
    assert line("training dpo", facts, 42) == "training dpo  120/2000  12 min left  2.5/s"
    assert line("training dpo", facts, 41) == "training dpo  120/2000  12 min left"
    assert line("aesthetic of a-very-long-name, seed 0", facts, 40) == "aesthet... seed 0  120/2000  12 min left"
    assert line("aesthetic of a-very-long-name, seed 0", facts, 10) == "aest...d 0"


def test_a_text_is_shortened_in_its_middle() -> None:
    assert shortened("0123456789", 10) == "0123456789"
    assert shortened("0123456789", 9) == "012...789"
    assert shortened("0123456789", 8) == "012...89"
    assert shortened("0123456789", 3) == "..."
    assert shortened("0123456789", 2) == ".."


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2.5 h")]
)
def test_a_duration_is_in_a_unit_that_a_reader_thinks_in(seconds: float, said: str) -> None:
    assert duration(seconds) == said
