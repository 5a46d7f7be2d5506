"""Time to the first step and memory by the number of pairs and processes.  ``python -m tests.campaigns.many_pairs FOLDER PAIRS``

Writes PAIRS pairs of 64-pixel pictures as Parquet, then starts a run on them with 1, 2 and 4 processes, each from nothing, and
prints the seconds until the training log has a line and the largest memory of all processes together (their private pages and
their share of common ones).  Encoding is most of it; with 1,000,000 pairs each run takes hours on two cores.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PICTURES = 256
ROWS = 10_000


def write_pairs(path: Path, count: int) -> None:
    """Pairs in Pick-a-Pic's columns, whose pictures repeat."""
    random = np.random.default_rng(0)
    pictures = [_png(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(PICTURES)]
    schema = pa.schema(
        {
            "caption": pa.string(),
            "jpg_0": pa.binary(),
            "jpg_1": pa.binary(),
            "label_0": pa.float64(),
            "label_1": pa.float64(),
        }
    )
    with pq.ParquetWriter(path, schema) as writer:
        for begin in range(0, count, ROWS):
            rows = range(begin, min(begin + ROWS, count))
            first, second = random.integers(0, PICTURES, (2, len(rows)))
            columns = {
                "caption": [f"picture {row % 1000}" for row in rows],
                "jpg_0": [pictures[each] for each in first],
                "jpg_1": [pictures[each] for each in second],
                "label_0": [float(row % 2) for row in rows],
                "label_1": [float(1 - row % 2) for row in rows],
            }
            writer.write_table(pa.table(columns, schema=schema))


def _png(pixels: np.ndarray) -> bytes:  # type: ignore[type-arg]
    stream = io.BytesIO()
    Image.fromarray(pixels // 64 * 64).save(stream, "PNG")
    return stream.getvalue()


def family(process: int) -> Iterator[int]:
    """A process and everything that it has started."""
    yield process
    for task in Path("/proc", str(process), "task").glob("*/children"):
        for child in task.read_text().split():
            yield from family(int(child))


def memory(process: int) -> int:
    """Bytes of a process and its children; pages that several share count once."""
    total = 0
    for each in family(process):
        try:
            rollup = Path("/proc", str(each), "smaps_rollup").read_text()
        except OSError:
            continue  # it has ended
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total * 1024


def measured(folder: Path, processes: int) -> dict[str, float]:
    """Seconds until the first step is logged, and the most memory until then."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    words = ["--set", "steps=2", "--set", "global_batch_size=8", "--set", "micro_batch_size=2", "--runs", "runs"]
    launcher = [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--main_process_port",
        "0",
        "--num_processes",
        str(processes),
    ]
    began, most = time.monotonic(), 0
    with subprocess.Popen(
        [
            *(
                sys.executable,
                *(launcher if processes > 1 else ()),
                "-m",
                "bench",
                "run",
                "--algo",
                "dpo",
                "--model",
                "tiny",
            ),
            *(
                "--data",
                "pairs.parquet",
                "--prompts",
                "prompts.txt",
                "--metrics",
                "aesthetic",
                "--sampling-steps",
                "1",
                *words,
            ),
        ],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    ) as process:
        while process.poll() is None and not any(
            path.stat().st_size for path in folder.glob("runs/*/*/*/*/train.jsonl")
        ):
            most = max(most, memory(process.pid))
            time.sleep(0.5)
        took = time.monotonic() - began
        process.send_signal(signal.SIGTERM)
    return {"processes": processes, "seconds_to_first_step": round(took, 1), "peak_mb": round(most / 1e6)}


def main() -> None:
    folder, count = Path(sys.argv[1]).absolute(), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.txt").write_text("a bee on a red background\na cat on a blue background\n")
    began = time.monotonic()
    write_pairs(folder / "pairs.parquet", count)
    print(json.dumps({"pairs": count, "seconds_to_write": round(time.monotonic() - began, 1)}), flush=True)  # noqa: T201
    for processes in (1, 2, 4):
        print(json.dumps({"pairs": count, **measured(folder, processes)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
