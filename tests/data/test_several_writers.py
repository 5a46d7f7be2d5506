"""A cache is filled by one process at a time; others wait for it, and then read what is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from workshop import SIDE, Workshop

from bench.core.errors import UserError
from bench.core.locks import exclusive
from bench.data.cache import EncodedData
from bench.data.candidates import generate_candidates
from bench.data.reading import read_preferences
from bench.data.row_cache import cached_rows
from bench.data.writing import held


def check_awaits(lock: Path, work: Callable[[], object], capfd: pytest.CaptureFixture[str]) -> None:
    """Check that ``work`` writes nothing into the lock's folder while somebody else holds the lock, and goes on afterwards."""
    finished = threading.Event()
    worker = threading.Thread(target=lambda: (work(), finished.set()))
    with exclusive(lock, "tests"):
        before = sorted(lock.parent.rglob("*"))
        worker.start()
        until, said = time.monotonic() + 60, ""
        while "waiting: process" not in said and time.monotonic() < until:
            time.sleep(0.05)
            said += capfd.readouterr().err
        assert "waiting: process" in said
        assert not finished.is_set()
        assert sorted(lock.parent.rglob("*")) == before
    worker.join(60)
    assert finished.is_set()
    assert len(list(lock.parent.rglob("*"))) > len(before)


def test_rows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "values.npy"
    check_awaits(
        tmp_path / "values.lock", lambda: cached_rows(path, "values", 3, lambda _: np.arange(3)), capfd
    )  # fmt: skip


def test_rows_that_another_process_has_computed_meanwhile_are_not_computed_again(tmp_path: Path) -> None:
    path, asked = tmp_path / "values.npy", []

    def compute(rows: slice) -> np.ndarray:
        asked.append(rows.start)
        return np.arange(rows.start, rows.stop)

    workers = [threading.Thread(target=cached_rows, args=(path, "values", 200, compute)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert asked == [0, 64, 128, 192]
    assert cached_rows(path, "values", 200, compute).tolist() == list(range(200))


def test_pictures_and_captions(workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, model = workshop.data, workshop.model()
    check_awaits(tmp_path / ".lock", lambda: EncodedData(data, model, tmp_path), capfd)


def test_candidates(workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = workshop.model()
    settings = model.generation.model_copy(update={"steps": 1, "height": SIDE, "width": SIDE, "precision": "fp32"})
    made = generate_candidates(model, ["a bee"], 2, settings, tmp_path / "one")
    (folder,) = (tmp_path / "one").iterdir()
    lock = tmp_path / "other" / folder.name / ".lock"
    check_awaits(lock, lambda: generate_candidates(model, ["a bee"], 2, settings, tmp_path / "other"), capfd)
    assert read_preferences(lock.parent).digest == made.digest


def test_a_pass_over_pictures(workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    read_preferences(workshop.data_file, cache=tmp_path / "one")
    (survey,) = (tmp_path / "one").glob("*.npz")
    lock = tmp_path / "other" / f"{survey.stem}.lock"
    check_awaits(lock, lambda: read_preferences(workshop.data_file, cache=lock.parent), capfd)


def test_what_a_killed_process_left_in_a_cache_goes(workshop: Workshop, tmp_path: Path) -> None:
    left = [tmp_path / f".{name}.0123abcd.partial" for name in ("text-a-00000000.npy", "scores-1.npy")]
    for path in left:
        path.write_bytes(b"half")
    EncodedData(workshop.data, workshop.model(), tmp_path)
    assert [path.exists() for path in left] == [False, True]  # somebody may be writing scores
    cached_rows(tmp_path / "scores-1.npy", "values", 3, lambda _: np.arange(3))
    assert not left[1].exists()


def test_an_output_that_another_command_writes_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "ranked.parquet"
    with (
        held(output),
        pytest.raises(UserError, match=r"process \d+ already writes .*ranked\.parquet; wait for it, or give another"),
        held(output),
    ):
        pass
