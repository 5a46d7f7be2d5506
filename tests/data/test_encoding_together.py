"""The processes of a launch encode the data together: each a part, once, and the files are those of one process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from launching import ALONE, HERE, TWO
from workshop import Workshop


def encode(launcher: list[str], workshop: Workshop, *words: str) -> list[int]:
    """The rows that each process has encoded."""
    done = subprocess.run(
        [*launcher, str(HERE / "encoding.py"), str(workshop.folder), *words],
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(map(int, done.stdout.split()))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".npy", ".sha256")}


def test_two_processes_encode_what_one_does(workshop: Workshop, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (whole,) = encode(ALONE, workshop, str(one))
    parts = encode(TWO, workshop, str(two))
    assert sum(parts) == whole
    assert min(parts) > whole // 3
    assert files(two) == files(one)
    assert encode(TWO, workshop, str(two)) == [0, 0]

    # What a launch that was killed has not made, another one divides anew.
    lost = sorted(path for path in two.glob("*.npy"))[:2]
    for path in lost:
        path.unlink()
        path.with_name(f"{path.name}.sha256").unlink()
    assert sum(encode(TWO, workshop, str(two))) > 0
    assert files(two) == files(one)


@pytest.mark.slow  # the same code as above, but for a folder that is not shared
def test_machines_without_a_common_folder_encode_everything_each(workshop: Workshop, tmp_path: Path) -> None:
    (whole,) = encode(ALONE, workshop, str(tmp_path / "one"))
    assert encode(TWO, workshop, str(tmp_path / "two"), "apart") == [whole, whole]
    assert files(tmp_path / "two" / "0") == files(tmp_path / "two" / "1") == files(tmp_path / "one")
