"""The scoring loop: what is recorded when something goes wrong in the middle, and what a second call does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.core.chunks import CHUNK
from bench.core.errors import UserError
from bench.core.files import read_lines
from bench.records.scores import MetricInfo, PromptedImage
from bench.scoring.loop import score_images
from bench.scoring.metric import Metric

COUNT = 2 * CHUNK + 6


class Brightness(Metric):
    """The mean of all pixels; it remembers how many it was asked for."""

    info: ClassVar[MetricInfo] = MetricInfo(title="Brightness", raw_range="0 to 255", unit="level", source="a test")

    def __init__(self) -> None:
        self.calls: list[int] = []

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        return cls()

    def identity(self) -> dict[str, Any]:
        return {}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        assert len(images) == len(prompts)
        self.calls.append(len(images))
        return torch.tensor([float(np.asarray(image).mean()) for image in images])


@pytest.fixture
def pictures(tmp_path: Path) -> list[PromptedImage]:
    paths = [tmp_path / f"{place}.png" for place in range(COUNT)]
    for place, path in enumerate(paths):
        Image.new("L", (4, 4), place).save(path)
    return [PromptedImage(path, "a grey", {"file": path.name}) for path in paths]


def scored(folder: Path, metric: Metric, pictures: Sequence[PromptedImage]) -> list[float]:
    return score_images(folder / "scores.jsonl", "greys", "brightness", metric, "abc", pictures)


def test_scores_come_in_the_order_of_the_pictures(tmp_path: Path, pictures: list[PromptedImage]) -> None:
    metric = Brightness()
    assert scored(tmp_path, metric, pictures) == list(range(COUNT))
    assert metric.calls == [CHUNK, CHUNK, 6]
    assert read_lines(tmp_path / "scores.jsonl")[-1] == {
        "file": f"{COUNT - 1}.png", "metric": "brightness", "score": COUNT - 1.0, "signature": "abc",
    }  # fmt: skip
    assert scored(tmp_path, metric, pictures) == list(range(COUNT))
    assert metric.calls == [CHUNK, CHUNK, 6]


def test_a_picture_that_vanished_costs_only_its_own_chunk(tmp_path: Path, pictures: list[PromptedImage]) -> None:
    lost = pictures[CHUNK + 3].path
    kept = lost.read_bytes()
    lost.write_bytes(kept[:30])
    metric = Brightness()
    with pytest.raises(UserError, match=f"{lost.name} cannot be scored"):
        scored(tmp_path, metric, pictures)
    assert metric.calls == [CHUNK]
    assert [line["score"] for line in read_lines(tmp_path / "scores.jsonl")] == list(range(CHUNK))
    lost.write_bytes(kept)
    assert scored(tmp_path, metric, pictures) == list(range(COUNT))
    assert metric.calls == [CHUNK, CHUNK, 6]


def test_a_chunk_in_the_middle_is_scored_again_as_a_whole(tmp_path: Path, pictures: list[PromptedImage]) -> None:
    metric, records = Brightness(), tmp_path / "scores.jsonl"
    scored(tmp_path, metric, pictures)
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[: CHUNK + 1] + lines[2 * CHUNK :]))
    assert scored(tmp_path, metric, pictures) == list(range(COUNT))
    assert metric.calls == [CHUNK, CHUNK, 6, CHUNK]
    assert sorted(line["score"] for line in read_lines(records)) == list(range(COUNT))
