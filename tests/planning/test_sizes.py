"""How much a plan is made for, as far as that is known without a download."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.core.errors import UserError
from bench.planning.sizes import DataSize, count_prompts, size_of_data
from bench.tiny import TINY


def pairs_of(path: Path, labels: list[float]) -> str:
    """Pairs whose captions are a, b, a, b, ..., with images that are never decoded."""
    captions = ["ab"[row % 2] for row in range(len(labels))]
    columns = {"text": captions, "jpg_0": [b""] * len(labels), "jpg_1": [b""] * len(labels), "label_0": labels}
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_the_tiny_worlds_own_data_and_prompts_are_counted() -> None:
    data = size_of_data(TINY.data)
    assert data.pairs == 3000
    assert data.captions is not None
    assert 1000 < data.captions < 3000  # captions repeat
    assert size_of_data(TINY.data, limit=32) == DataSize(32, 32)
    assert count_prompts(TINY.prompts) == count_prompts("tiny") == 200
    assert count_prompts(TINY.prompts, limit=32) == 32


def test_ties_are_no_pairs_and_captions_count_once(tmp_path: Path) -> None:
    data, columns = pairs_of(tmp_path / "x.parquet", [1.0, 0.5, 0.0, 1.0, 0.5, 0.0]), {"caption": "text"}
    assert size_of_data(data, columns) == DataSize(4, 2)  # a, a, b and b
    assert size_of_data(data, columns, limit=2) == DataSize(2, 1)
    assert size_of_data(data, columns, limit=100) == DataSize(4, 2)
    with pytest.raises(UserError, match="no preference pair is left of 2 rows"):
        size_of_data(pairs_of(tmp_path / "ties.parquet", [0.5, 0.5]), columns)


def test_what_is_not_on_this_machine_is_not_known_beyond_its_limit() -> None:
    for data in (None, "nowhere.parquet", "owner/name:train"):
        assert size_of_data(data) == DataSize(None, None)
        assert size_of_data(data, limit=8) == DataSize(8, 8)
    for prompts in (None, "nowhere.txt"):
        assert count_prompts(prompts) is None
        assert count_prompts(prompts, limit=8) == 8


def test_a_set_on_the_hub_states_its_prompts(tmp_path: Path) -> None:
    assert count_prompts("partiprompts") == 1632
    assert count_prompts("partiprompts", limit=8) == 8
    file = tmp_path / "prompts.txt"
    file.write_text("a bee\na cat\na bee\n")
    assert count_prompts(str(file)) == 2
