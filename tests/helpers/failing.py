"""The command line as one process of a launch, which fails at a given place: ``FAIL=RANK:STAGE:ACT failing.py FOLDER WORDS...``.

Its exit code goes to FOLDER/code-RANK.  A stage is one of `bench.core.peers.Stage`, or STEP for the third training step.  Acts: kill,
raise, stop, full (nothing can be written any more), term and int (the launcher gets the signal).  Limits are short.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.training.batches import StepBatches
    from bench.training.step import Trainer


def _raise() -> None:
    raise ValueError("something is broken")


def _fill() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))


def _signal_launcher(number: signal.Signals) -> None:
    os.kill(int(os.environ["LAUNCHER"]), number)


ACTS: Mapping[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "raise": _raise,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "full": _fill,
    "term": lambda: _signal_launcher(signal.SIGTERM),
    "int": lambda: _signal_launcher(signal.SIGINT),
}


def command() -> None:
    from bench.cli.main import main
    from bench.core import launched, peers

    rank, stage, act = os.environ.get("FAIL", "-1::").split(":")
    peers.SILENT, peers.NOTICE = 12, 4
    working = launched.working

    @contextlib.contextmanager
    def failing(on: peers.Stage) -> Iterator[None]:
        with working(on):
            if (rank, stage) == (os.environ["RANK"], on.name):
                ACTS[act]()
            yield

    launched.working = failing
    if (rank, stage) == (os.environ["RANK"], "STEP"):
        from bench.training import loop

        step_of = loop.training_step

        def step_failing(trainer: Trainer, batches: StepBatches, step: int) -> dict[str, Any]:
            if step == 2 and act == "nan":
                trainer.policy.parameters()[0][1].data.fill_(float("nan"))
            elif step == 2:
                ACTS[act]()
            return step_of(trainer, batches, step)

        loop.training_step = step_failing
    main()


if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    os.environ["LAUNCHER"] = str(os.getppid())
    child = os.fork()
    if child == 0:
        command()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    (folder / f"code-{os.environ['RANK']}").write_text(str(code))
    sys.exit(code if code >= 0 else 128 - code)
