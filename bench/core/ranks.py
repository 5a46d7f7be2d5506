"""This process's place among those that a launcher such as ``accelerate launch`` started for one command."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number; 0 for the main process, and for a process alone."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes there are; 1 for a process alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))
