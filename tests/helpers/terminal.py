"""A terminal for a command."""

from __future__ import annotations

import contextlib
import os
import subprocess


def on_terminal(words: list[str], environment: dict[str, str]) -> str:
    """What a command shows on a terminal of its own."""
    shown = bytearray()
    ours, theirs = os.openpty()
    with subprocess.Popen(words, env=environment, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
            while piece := os.read(ours, 4096):
                shown += piece
    os.close(ours)
    return shown.decode()
