"""Encodes the micro model's data with as many processes as were started: ``python encoding.py WORKSHOP FOLDER``.

Each process prints the number of rows that it has encoded.
"""

from __future__ import annotations

import sys
from pathlib import Path

from workshop import Workshop

from bench.core.processes import Processes
from bench.data import cache
from bench.training.distributed.launch import connect

cache.SHARD = 2  # so that there are several

if __name__ == "__main__":
    accelerator, folder = connect(), Path(sys.argv[2])
    if len(sys.argv) > 3:  # each in a folder of its own, as on machines that share none
        folder /= str(accelerator.process_index)
    workshop, make = Workshop(Path(sys.argv[1])), cache._Piece.make
    encoded: list[int] = []

    def counted(piece: cache._Piece) -> None:
        encoded.append(piece.count)
        make(piece)

    cache._Piece.make = counted  # type: ignore[method-assign]
    data = cache.EncodedData(workshop.data, workshop.model(), folder, processes=Processes(accelerator))
    captions = list(workshop.data.captions)
    assert len(data.posterior(range(len(captions))).mean) == len(
        data.condition(captions)[workshop.model().condition_names[0]]
    )
    sys.stdout.write(f"{sum(encoded)}\n")
