"""The executor that starts nothing: it prints the commands, for whatever scheduler there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from bench.core.terminal import Terminal
from bench.experiments.executors.base import Executor, Matrix


class Print(Executor):
    """Prints one line per cell, which depends on nothing but the folder that it is started in."""

    title: ClassVar[str] = (
        "print one command per cell, for any scheduler; start the first lines, bench eval, before the others"
    )
    waits: ClassVar[bool] = False

    def start(self, matrix: Matrix) -> Sequence[str]:
        """See `Executor.start`; nothing runs, so nothing fails."""
        console = Terminal(highlight=False, soft_wrap=True)
        for cell in matrix.cells:
            console.print(cell.line(), markup=False)
        return ()
