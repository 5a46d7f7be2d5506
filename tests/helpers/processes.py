"""Trains the micro model on as many processes as were started: ``python processes.py WORKSHOP JSON``.

The JSON holds settings by output folder.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from workshop import Workshop

from algorithms.dpo import DPO
from bench import PairBatch, StepOutput
from bench.training.algorithm import ALGORITHMS
from bench.training.distributed.launch import connect
from bench.training.policy import Policy


class Uneven(DPO):
    """Calls the network once more in one of the processes."""

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        if os.environ["RANK"] == "1":
            policy.reference(batch.winner, batch.draws.uniform("timestep").long(), batch.condition)
        return super().step(batch, policy)


if __name__ == "__main__":
    workshop, accelerator = Workshop(Path(sys.argv[1])), connect()
    for folder, settings in json.loads(sys.argv[2]).items():
        name, fields = settings.pop("algorithm", "dpo"), settings.pop("fields", {})
        algorithm = (Uneven if name == "uneven" else ALGORITHMS.get(name))(**fields)
        data = algorithm.prepare(workshop.data, workshop.context())
        workshop.train(Path(folder), algorithm, data=data, accelerator=accelerator, **settings)
