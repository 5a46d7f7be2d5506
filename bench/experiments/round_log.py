"""The log and the cost of a run in rounds: those of its rounds, one after another, also while they are trained."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from torch import nn

from bench.core.files import append_lines, keep_lines, read_json
from bench.records.runs import PREPARED, RunFolder
from bench.records.tails import last_line

SUMMED = ("pairs", "seconds")
"""What a line of the log has of the cost of all steps so far."""


@dataclasses.dataclass(frozen=True)
class RoundsLog:
    """What the finished rounds of a run leave, as the run's own.

    Attributes:
        lines: of their logs; steps are numbered through, ``pairs`` and ``seconds`` are sums over rounds.
        total: their cost, named as in the ledger.
        rounds: how many there are.
    """

    lines: tuple[dict[str, Any], ...] = ()
    total: dict[str, Any] = dataclasses.field(default_factory=dict)
    rounds: int = 0

    def joined(self, line: dict[str, Any], prepared: dict[str, Any]) -> dict[str, Any]:
        """A line of the next round's log as one of the run's.

        Args:
            line: the round's own.
            prepared: what its folder says of the time before its training, and what that cost.
        """
        before = {name: self.total.get(name, 0) for name in SUMMED}
        before["seconds"] += prepared["seconds"]
        sums = {name: line[name] + before[name] for name in SUMMED}
        return {**line, "step": len(self.lines) + line["step"], **sums, "round": self.rounds + 1}

    def then(self, place: RunFolder) -> RoundsLog:
        """With one more finished round, of this folder."""
        ledger = place.ledger()
        if ledger is None:
            raise ValueError(f"{place.folder} has no ledger")
        prepared = read_json(place.folder / PREPARED)
        cost = {
            **ledger,
            "samples": prepared["samples"],
            "reward_calls": prepared["reward_calls"],
            "seconds": ledger["seconds"] + prepared["seconds"],
        }
        peak = max(self.total.get("peak_memory_bytes", 0), ledger["peak_memory_bytes"])
        total = {name: self.total.get(name, 0) + value for name, value in cost.items()} | {"peak_memory_bytes": peak}
        lines = (self.joined(dict(line), prepared) for line in place.steps())
        return RoundsLog((*self.lines, *lines), total, self.rounds + 1)


class FollowingLog:
    """A `bench.training.watching.Watcher` of a round: every step is a line of the run's log at once.

    Args:
        run: the run.
        place: the round's folder.
        earlier: the rounds before.
        main: whether this process writes records.
    """

    def __init__(self, run: RunFolder, place: RunFolder, earlier: RoundsLog, *, main: bool) -> None:
        self._run, self._place, self._earlier, self._main = run, place, earlier, main
        self._begun = False

    def __call__(self, step: int, pairs: int, network: nn.Module, *, last: bool) -> bool:
        if self._main:
            prepared = read_json(self._place.folder / PREPARED)
            if self._begun:
                line = json.loads(last_line(self._place.train_log))
                append_lines(self._run.train_log, [json.dumps(self._earlier.joined(line, prepared))])
            else:  # what an earlier command left behind the checkpoint goes
                lines = [self._earlier.joined(dict(line), prepared) for line in self._place.steps()[:step]]
                keep_lines(self._run.train_log, [*self._earlier.lines, *lines])
                self._begun = True
        return False
