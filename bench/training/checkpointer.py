"""When a checkpoint is saved, and what goes into it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from bench.core.processes import Processes
from bench.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from bench.training.ledger import SUMMED, Ledger

SAVING_SHARE = 0.05
"""Largest share of the training time that saving may take, unless every step is to be saved."""


class Checkpointer:
    """Saves the training state at intervals, and resumes from what was saved.

    Args:
        folder: where the checkpoints are.
        state: what training changes.
        ledger: what this process has spent; part of every checkpoint, summed over the processes.
        accelerator: the processes; each of them must make every call.
        run: which run it is; see `bench.records.config.RunConfig.run_id`.
        seconds: minimum time between two checkpoints; 0 saves after every step.
    """

    def __init__(
        self, folder: Path, state: TrainingState, ledger: Ledger, accelerator: Accelerator, run: str, seconds: float
    ) -> None:
        self._folder, self._state, self._ledger, self._accelerator = folder, state, ledger, accelerator
        self._processes, self._run = Processes(accelerator), run
        self._seconds = self._pause = seconds
        self._saved_at, self._saved_step = time.monotonic(), -1

    def resume(self) -> int:
        """Load the newest checkpoint, in place; returns the step to continue with, 0 when there is none.

        Raises:
            UserError: the checkpoint cannot be read, or is of another run.
        """
        self._saved_step = load_checkpoint(self._folder, self._state, self._ledger, self._run)
        if not self._processes.main:
            self._ledger.reset_counts()  # the main process continues with the sums
        return self._saved_step

    def save_if_due(self, step: int, *, last: bool) -> None:
        """Save the state before ``step`` if the last checkpoint is old enough, or if it is the last step."""
        now = time.monotonic()
        # Clocks differ between processes and saving is collective, so the main process decides for all.
        if self._processes.broadcast(last or now - self._saved_at >= self._pause):
            self.save(step)
            took = time.monotonic() - now
            self._pause = self._seconds and max(self._seconds, took / SAVING_SHARE)

    def save(self, step: int) -> None:
        """Save the state before ``step``, unless that is already saved."""
        if step == self._saved_step:
            return
        total = self.total_cost()
        # Gathering a tensor is collective; only the main process keeps the results and writes them.
        tensors = {}
        for name, value in self._state.tensors():
            if self._processes.main:
                tensors[name] = value.cpu().contiguous()
        if self._processes.main:
            save_checkpoint(self._folder, step, tensors, total, self._run)
        self._accelerator.wait_for_everyone()
        self._saved_at, self._saved_step = time.monotonic(), step

    def total_cost(self) -> Ledger:
        """What all processes have spent together."""
        own = [getattr(self._ledger, name) for name in SUMMED]
        counts = torch.tensor(own, dtype=torch.int64, device=self._accelerator.device)
        summed = self._accelerator.reduce(counts, reduction="sum").tolist()
        return dataclasses.replace(self._ledger, **dict(zip(SUMMED, summed, strict=True)))
