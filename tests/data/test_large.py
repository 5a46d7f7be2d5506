"""Data with a million rows is checked, and ordered, in constant memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workshop import png

ROWS = 1_000_000
WORK = """
import resource, sys
sys.argv = ["bench", "data", "check", sys.argv[1], "--runs", sys.argv[2]]
import torch
from bench.cli import app
from bench.data.reading import read_preferences
from bench.core.randomness import batch_rows
from bench.records.runs import surveys_folder
from pathlib import Path
app(standalone_mode=False)
data = read_preferences(sys.argv[3], cache=surveys_folder(Path(sys.argv[5])))
assert sum(len(batch_rows(len(data), 64, 0, step)) for step in range(len(data) // 64)) == len(data) // 64 * 64
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def write(path: Path, rows: int) -> Path:
    images, piece = [png(seed) for seed in range(50)], 50_000
    schema = pa.schema({"caption": pa.string(), "jpg_0": pa.binary(), "jpg_1": pa.binary(), "label_0": pa.float64()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, piece):
            numbers = range(start, min(start + piece, rows))
            columns = {
                "caption": [f"synthetic picture number {number}" for number in numbers],
                "jpg_0": [images[number % 50] for number in numbers],
                "jpg_1": [images[(7 * number + 1) % 50] for number in numbers],
                "label_0": [float(number % 3 != 1) for number in numbers],
            }
            writer.write_table(pa.table(columns, schema))
    return path


def peak(path: Path, runs: Path) -> int:
    words = [sys.executable, "-c", WORK, str(path), str(runs)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rsplit("peak", 1)[1])


@pytest.mark.slow
def test_a_million_rows_take_no_more_memory_than_their_captions(tmp_path: Path) -> None:
    small = peak(write(tmp_path / "small.parquet", 1000), tmp_path / "runs")
    large = write(tmp_path / "large.parquet", ROWS)
    assert peak(large, tmp_path / "runs") - small < 200
    began = time.monotonic()
    assert peak(large, tmp_path / "runs") - small < 200
    print(f"the second call took {time.monotonic() - began:.1f} s")  # noqa: T201 (shown by -s; no bound, machines differ)
