from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.cli.options import choose_metrics
from bench.core.errors import UserError
from bench.core.locks import exclusive
from bench.records.scores import FolderScores, MetricInfo
from bench.scoring.folder import score_folder
from bench.scoring.loop import Judge
from bench.scoring.metric import Metric


class Brightness(Metric):
    """A real scorer of one line, which counts what it was asked; its checkpoint is its version."""

    info: ClassVar[MetricInfo] = MetricInfo(title="Brightness", raw_range="0 to 255", unit="level", source="here")
    asked: ClassVar[list[str]]

    def __init__(self, version: str | None) -> None:
        self.version = version

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        return cls(checkpoint)

    def identity(self) -> dict[str, Any]:
        return {"version": self.version}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        self.asked.extend(prompts)
        return torch.tensor([float(np.asarray(image).mean()) for image in images])


class Blind(Brightness):
    reads_prompt: ClassVar[bool] = False


class Dull(Brightness):
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return torch.ones(len(images))


class Crowd(Brightness):
    """Judges against the other prompts."""

    def for_prompts(self, prompts: Sequence[str]) -> Metric:
        return Crowd(str(len(prompts)))


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    prompts: list[str] = []
    monkeypatch.setattr(Brightness, "asked", prompts, raising=False)
    return prompts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for level in range(70):
        save(tmp_path / "images" / f"{level}.png", level)
        (tmp_path / "images" / f"{level}.txt").write_text(f"level {level}")
    return tmp_path / "images"


def save(path: Path, level: int) -> None:
    Image.new("RGB", (4, 4), (level, level, level)).save(path)


def score(
    folder: Path, kind: type[Metric] = Brightness, version: str | None = "1", output: str = "s.parquet"
) -> FolderScores:
    return score_folder(folder, None, {"brightness": Judge(kind, version)}, folder.parent / output)


def test_the_table_holds_score_prompt_and_identity_of_every_image(folder: Path) -> None:
    result = score(folder)
    rows = pq.read_table(folder.parent / "s.parquet").to_pylist()
    assert [(row["file"], row["prompt"], row["score"]) for row in rows] == [
        (f"{level}.png", f"level {level}", float(level)) for level in range(70)
    ]
    assert {row["metric_signature"] for row in rows} == {result.metrics[0].signature}
    identity = result.metrics[0].identity
    assert identity["version"] == "1"
    assert {row["metric_identity"] for row in rows} == {json.dumps(identity, sort_keys=True)}
    assert {row["metric"] for row in rows} == {"brightness"}


def test_csv_and_parquet_hold_the_same_and_share_their_records(folder: Path, asked: list[str]) -> None:
    score(folder)
    score(folder, output="s.csv")
    assert len(asked) == 70
    read = pyarrow.csv.ConvertOptions(
        column_types=pq.read_schema(folder.parent / "s.parquet"), strings_can_be_null=True
    )
    table = pyarrow.csv.read_csv(folder.parent / "s.csv", convert_options=read)
    assert table.to_pylist() == pq.read_table(folder.parent / "s.parquet").to_pylist()


def test_only_what_is_missing_is_scored(folder: Path, asked: list[str]) -> None:
    whole = score(folder).metrics[0].scores
    records = folder.parent / "s.records.jsonl"
    lines = records.read_text().splitlines()
    records.write_text("\n".join(lines[:40]) + "\n" + lines[40][:25])
    asked.clear()
    assert score(folder).metrics[0].scores == whole
    assert asked == [f"level {level}" for level in range(32, 70)]  # what was whole were the first 32
    asked.clear()
    score(folder)
    assert asked == []


def test_a_changed_image_prompt_or_metric_is_scored_again(folder: Path, asked: list[str]) -> None:
    score(folder)
    save(folder / "0.png", 200)
    (folder / "69.txt").write_text("another")
    asked.clear()
    scores = score(folder).metrics[0].scores
    assert scores[0] == 200.0
    assert set(asked) == {f"level {level}" for level in (*range(32), *range(64, 69))} | {"another"}
    asked.clear()
    score(folder, version="2")
    assert len(asked) == 70


def test_images_that_cannot_be_read_are_named_and_the_rest_is_scored(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"")
    (folder / "4.png").write_text("a text")
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:50])
    Image.new("1", (9000, 9000)).save(folder / "6.png")
    result = score(folder)
    assert list(result.unreadable) == ["3.png", "4.png", "5.png", "6.png"]
    rows = pq.read_table(folder.parent / "s.parquet").to_pylist()
    assert [row["score"] for row in rows] == [None if 3 <= level <= 6 else float(level) for level in range(70)]
    problems = [row["problem"] for row in rows[3:7]]
    for problem, word in zip(problems, ("empty", "not an image", "decoded", "9000 x 9000"), strict=True):
        assert word in problem
    assert all(row["problem"] is None for row in [*rows[:3], *rows[7:]])


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(UserError, match=r"none of the 1 images .* can be read; the first: a.png: an empty file"):
        score(tmp_path / "images", Blind)
    assert not (tmp_path / "s.parquet").exists()


def test_prompts_are_asked_for_only_where_they_are_read(folder: Path) -> None:
    for text in folder.glob("*.txt"):
        text.unlink()
    assert score(folder, Blind).metrics[0].scores[:3] == [0.0, 1.0, 2.0]
    with pytest.raises(UserError, match="70 of 70 images in .* have no prompt beside them"):
        score(folder)


def test_a_metric_that_gives_different_images_one_score_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="returns the score 1.0 for all 70 images of .*; fix the metric"):
        score(folder, Dull)
    for level in range(70):
        save(folder / f"{level}.png", 7)
    assert set(score(folder).metrics[0].scores) == {7.0}  # equal images may have equal scores


def test_a_metric_learns_of_all_prompts(folder: Path) -> None:
    assert score(folder, Crowd).metrics[0].identity["version"] == "70"


def test_a_second_process_is_refused(folder: Path) -> None:
    score(folder)
    with (
        exclusive(folder.parent / ".s.records.jsonl.lock", "waits"),
        pytest.raises(
            UserError, match=r"process \d+ already writes .*s.parquet; wait for it, or give another --output"
        ),
    ):
        score(folder)


def test_the_output_must_be_of_a_known_format(folder: Path) -> None:
    with pytest.raises(UserError, match=r"'.*s.xlsx' must end in .parquet or .csv"):
        score(folder, output="s.xlsx")


@pytest.mark.parametrize("output", ["s.csv", "s.parquet"])
def test_only_a_table_of_its_own_is_replaced(folder: Path, asked: list[str], output: str) -> None:
    table = folder.parent / output
    table.write_bytes(b"file,rating\n0.png,\xff5\n")
    with pytest.raises(UserError, match=f"{output} exists and was not written by this command; delete it, or give"):
        score(folder, output=output)
    assert table.read_bytes() == b"file,rating\n0.png,\xff5\n"
    assert asked == []
    table.unlink()
    score(folder, output=output)
    score(folder, version="2", output=output)
    table.rename(folder.parent / f"theirs-{output}")  # a table that came without its records
    with pytest.raises(UserError, match="was not written by this command"):
        score(folder, output=f"theirs-{output}")
    table.mkdir()
    with pytest.raises(UserError, match="was not written by this command"):
        score(folder, output=output)


WHOLE = {"file": "0.png", "image": "0" * 16, "prompt": "", "metric": "brightness", "score": 0.5, "signature": "abc"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"note": "my own records"}\n', "line 1 is not the record of a score (it has no 'file')"),
        (b"my own records\n", "line 1 is not the record of a score (Expecting value"),
        (f"{json.dumps(WHOLE)}\n[7]\n".encode(), "line 2 is not the record of a score (it is not a JSON object)"),
        (json.dumps({**WHOLE, "score": None}).encode() + b"\n", "(a value is of another kind)"),
        (json.dumps({**WHOLE, "score": float("nan")}).encode() + b"\n", "(a value is of another kind)"),
        (json.dumps({**WHOLE, "metric": []}).encode() + b"\n", "(a value is of another kind)"),
        (json.dumps({**WHOLE, "image": {}}).encode() + b"\n", "(a value is of another kind)"),
        (b"\xff\xfe\n", "holds no records of scores ('utf-8' codec"),
    ],
)
def test_only_records_of_its_own_are_replaced(folder: Path, asked: list[str], content: bytes, why: str) -> None:
    records = folder.parent / "s.records.jsonl"
    records.write_bytes(content)
    with pytest.raises(UserError) as refused:
        score(folder)
    assert str(refused.value).startswith(f"{records}")
    assert why in str(refused.value)
    assert "delete it if nothing else needs it, or give another --output than" in str(refused.value)
    assert records.read_bytes() == content
    assert asked == []


@pytest.mark.parametrize("output", ["s.parquet", "s.csv"])
def test_scores_of_another_folder_are_not_replaced(folder: Path, asked: list[str], output: str) -> None:
    score(folder, output=output)
    records = folder.parent / "s.records.jsonl"
    before = records.read_bytes(), (folder.parent / output).read_bytes()
    other = shutil.copytree(folder, folder.with_name("other"))
    save(other / "0.png", 200)
    asked.clear()
    with pytest.raises(UserError) as refused:
        score(other, output=output)
    assert str(refused.value) == (
        f"{folder.parent / output} and s.records.jsonl beside it hold the scores of {folder}; give another --output for those "
        f"of {other}, or delete both"
    )
    assert (records.read_bytes(), (folder.parent / output).read_bytes()) == before
    assert asked == []


def test_images_may_change_and_a_folder_may_be_moved(folder: Path, asked: list[str]) -> None:
    score(folder)
    for level in range(30, 70):
        (folder / f"{level}.png").unlink()
    save(folder / "0.png", 200)
    assert len(score(folder).pictures) == 30  # of the same folder
    asked.clear()
    moved = folder.rename(folder.with_name("moved"))
    save(moved / "30.png", 30)
    assert len(score(moved).pictures) == 31
    assert asked == [f"level {level}" for level in range(31)]  # the one chunk, which has another image


def test_records_of_an_older_version_name_no_folder_and_count(folder: Path, asked: list[str]) -> None:
    score(folder)
    records = folder.parent / "s.records.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert {line.pop("folder") for line in lines} == {str(folder)}
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked.clear()
    score(folder)
    assert asked == []


def test_a_folder_in_the_place_of_the_records_is_refused(folder: Path) -> None:
    (folder.parent / "s.records.jsonl").mkdir()
    with pytest.raises(UserError, match=r"s.records.jsonl holds no records of scores .*Is a directory"):
        score(folder)


def test_a_checkpoint_that_is_given_comes_before_the_models_and_the_published() -> None:
    judges = choose_metrics(["pickscore", "aesthetic", "clip"], "tiny", {"aesthetic": "mine"})
    assert {name: judge.checkpoint and Path(judge.checkpoint).name for name, judge in judges.items()} == {
        "pickscore": "pickscore",
        "aesthetic": "mine",
        "clip": None,
    }
    assert list(choose_metrics(None, "tiny", {})) == ["pickscore", "hpsv2", "imagereward", "aesthetic", "gold"]


@pytest.mark.parametrize(
    ("names", "own", "complaint"),
    [
        (None, {}, "choose metrics: --metrics with one or more of aesthetic,clip"),
        (["pikscore"], {}, "unknown metric 'pikscore': did you mean 'pickscore'"),
        (["clip"], {"pickscore": "x"}, "--checkpoint pickscore=... is for a metric that is not in --metrics"),
    ],
)
def test_metrics_that_cannot_be_chosen(names: list[str] | None, own: dict[str, str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        choose_metrics(names, None, own)


def test_records_are_json_lines_with_signature(folder: Path) -> None:
    signature = score(folder).metrics[0].signature
    lines = [json.loads(line) for line in (folder.parent / "s.records.jsonl").read_text().splitlines()]
    assert len(lines) == 70
    assert {line["signature"] for line in lines} == {signature}
