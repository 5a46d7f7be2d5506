"""Time to the first step and memory by the number of pairs and processes.

``python -m tests.campaigns.many_pairs FOLDER PAIRS [PROCESSES ...]`` writes PAIRS pairs as Parquet and a model so small that encoding
costs little (pictures of 8x8 pixels), so that what is measured is the handling of rows: reading, checking, captions, caches.  Then
it starts a run on them for each number of processes (1, 2 and 4), each from nothing, and prints one line: by stage, until the first
step is logged, the seconds, the seconds of CPU time, and the largest memory of all processes together up to its end, without and
with the pages of files that they have mapped.

There is one caption for 17 pairs, as in Pick-a-Pic.  With 1,000,000 pairs a single process needs 17 minutes of one core, two
processes 13 minutes of two.
"""

from __future__ import annotations

import argparse
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
from numpy.typing import NDArray
from PIL import Image

from bench.experiments.contracts.small_models import SIDE, write_micro_model
from bench.tiny import ASSETS

PICTURES = 256
"""Pictures that differ; the bytes of all of them differ, as in real data."""
PAIRS_PER_CAPTION = 17
ROWS = 10_000
STAGES = {
    "start": "runs/.cache/surveys/*.lock",
    "reading": "runs/.cache/surveys/*.npz.sha256",
    "base": "runs/*/base/evaluations/*/metrics.json",
    "first shard": "runs/.cache/*/posterior-*-00000000.npy.sha256",
    "encoding": "runs/.cache/*/negative-*.npy.sha256",
    "first step": "runs/*/*/*/*/train.jsonl",
}
"""What is there, and not empty, when a stage is over."""


def write_pairs(path: Path, count: int) -> None:
    """Pairs in Pick-a-Pic's columns."""
    random = np.random.default_rng(0)
    pictures = [_png(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(PICTURES)]
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
            chosen = random.integers(0, PICTURES, (2, len(rows))).tolist()
            columns = {
                "caption": [
                    f"picture {row // PAIRS_PER_CAPTION} of a caption of about the usual length" for row in rows
                ],
                # Decoders do not read on after the end of a picture.
                "jpg_0": [pictures[each] + (2 * row).to_bytes(8) for row, each in zip(rows, chosen[0], strict=True)],
                "jpg_1": [
                    pictures[each] + (2 * row + 1).to_bytes(8) for row, each in zip(rows, chosen[1], strict=True)
                ],
                "label_0": [float(row % 2) for row in rows],
                "label_1": [float(1 - row % 2) for row in rows],
            }
            writer.write_table(pa.table(columns, schema=schema))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_model(folder: Path) -> None:
    """A model with random weights, judged by one of the tiny world's metrics."""
    write_micro_model(folder)
    card = {"metrics": {"aesthetic": str(ASSETS / "scorers" / "aesthetic")}, "generation": {"steps": 1}}
    (folder / "bench.json").write_text(json.dumps(card))


def family(process: int) -> Iterator[int]:
    """A process and everything that it has started."""
    yield process
    for task in Path("/proc", str(process), "task").glob("*/children"):
        for child in task.read_text().split():
            yield from family(int(child))


def cpu_seconds(process: int) -> float:
    """CPU time of a process and its children."""
    ticks = 0
    for each in family(process):
        try:
            words = Path("/proc", str(each), "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended, and its parent counts it
        ticks += sum(map(int, words[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(process: int) -> NDArray[np.int64]:
    """Bytes of a process and its children without and with mapped files; what several share counts once; int64, (2,)."""
    total = np.zeros(2, dtype=np.int64)
    for each in family(process):
        try:
            rollup = Path("/proc", str(each), "smaps_rollup").read_text()
        except OSError:
            continue  # it has ended
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
        total += 1024 * np.array([sizes["Pss_Anon"], sizes["Pss"]])
    return total


def measured(folder: Path, processes: int) -> dict[str, object]:
    """Seconds, CPU seconds and the most memory, in MB, by stage."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0", "--num_processes"]
    words = [
        sys.executable, *([*launcher, str(processes)] if processes > 1 else ()), "-m", "bench", "run", "--algo", "dpo",
        "--model", "model", "--data", "pairs.parquet", "--prompts", "prompts.txt", "--runs", "runs",
        "--set=steps=3", "--set=global_batch_size=64", "--set=micro_batch_size=16", "--set=horizontal_flip=none",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    stages: dict[str, dict[str, float]] = {}
    began, worked, peak = time.monotonic(), 0.0, np.zeros(2, dtype=np.int64)
    with subprocess.Popen(words, cwd=folder, env=environment) as process:
        for stage, pattern in STAGES.items():
            used = worked
            while process.poll() is None and not any(path.exists() for path in folder.glob(pattern)):
                used, peak = cpu_seconds(process.pid), np.maximum(peak, memory(process.pid))
                time.sleep(0.5)
            now, (own, mapped) = time.monotonic(), peak.tolist()
            stages[stage] = {"s": round(now - began, 1), "cpu_s": round(used - worked, 1),
                             "mb": round(own / 1e6), "mapped_mb": round(mapped / 1e6)}  # fmt: skip
            began, worked = now, used
        process.send_signal(signal.SIGTERM)
    return {"processes": processes, **stages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pairs", type=int)
    parser.add_argument("processes", type=int, nargs="*", default=[1, 2, 4])
    typed = parser.parse_args()
    folder: Path = typed.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.txt").write_text("a bee on a red background\na cat on a blue background\n")
    write_model(folder / "model")
    began = time.monotonic()
    write_pairs(folder / "pairs.parquet", typed.pairs)
    print(json.dumps({"pairs": typed.pairs, "seconds_to_write": round(time.monotonic() - began, 1)}), flush=True)  # noqa: T201
    for processes in typed.processes:
        print(json.dumps({"pairs": typed.pairs, **measured(folder, processes)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
