"""What takes long to compute is kept on the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from workshop import Workshop

from bench.core.errors import UserError
from bench.data.row_cache import cached_rows


def test_an_interrupted_computation_goes_on_where_it_was(tmp_path: Path) -> None:
    asked: list[int] = []

    def compute(rows: slice) -> NDArray[np.float32]:
        asked.append(rows.start)
        if asked == [0, 64, 128]:
            raise KeyboardInterrupt
        return np.outer(np.arange(rows.start, rows.stop), [1, 10]).astype(np.float32)

    file = tmp_path / "sub" / "values.npy"
    with pytest.raises(KeyboardInterrupt):
        cached_rows(file, "values", 150, compute)
    values = cached_rows(file, "values", 150, compute)
    assert asked == [0, 64, 128, 128]
    assert (values.shape, values.dtype) == ((150, 2), np.float32)
    assert values[[0, 63, 64, 149]].tolist() == [[0, 0], [63, 630], [64, 640], [149, 1490]]
    assert sorted(os.listdir(file.parent)) == ["values.lock", "values.npy", "values.npy.sha256"]
    cached_rows(file, "values", 150, compute)
    assert len(asked) == 4


def test_features_stay_on_disk(workshop: Workshop) -> None:
    features = workshop.context().features("pickscore", workshop.data)
    assert isinstance(features, np.memmap)
    assert (features.shape, features.dtype) == ((40, 3, 3), np.float32)
    picture = np.asarray(workshop.data.image(7, 1), dtype=np.float64).mean((0, 1))
    assert features[7, 2].tolist() == pytest.approx((picture / np.linalg.norm(picture)).tolist(), abs=1e-6)


def test_a_full_disk_leaves_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "values.npy"

    def fill(_stream: object, _header: object) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", fill)
    with pytest.raises(UserError, match=r"the disk is full: .*values\.npy could not be written"):
        cached_rows(file, "values", 70, lambda rows: np.zeros(rows.stop - rows.start))
    assert sorted(os.listdir(tmp_path / "values.shards")) == [
        "00000000.npy", "00000000.npy.sha256", "00000064.npy", "00000064.npy.sha256",
    ]  # fmt: skip


def test_a_changed_file_is_named_and_a_deleted_one_is_computed_again(tmp_path: Path) -> None:
    def compute(rows: slice) -> NDArray[np.float64]:
        return np.arange(rows.start, rows.stop, dtype=np.float64)

    file = tmp_path / "values.npy"
    cached_rows(file, "values", 70, compute)
    np.save(file, np.zeros(70))
    with pytest.raises(
        UserError, match=r"values\.npy is damaged \(its SHA-256 .*; delete it and give the command again"
    ):
        cached_rows(file, "values", 70, compute)
    file.unlink()
    assert cached_rows(file, "values", 70, compute).tolist() == list(range(70))


def test_shards_that_a_killed_process_left_beside_the_whole_file_go(tmp_path: Path) -> None:
    file = tmp_path / "values.npy"
    cached_rows(file, "values", 70, lambda rows: np.zeros(rows.stop - rows.start))
    (tmp_path / "values.shards").mkdir()
    (tmp_path / "values.shards" / "00000000.npy").write_bytes(b"x")
    cached_rows(file, "values", 70, lambda _: pytest.fail("it is there"))
    assert not (tmp_path / "values.shards").exists()
