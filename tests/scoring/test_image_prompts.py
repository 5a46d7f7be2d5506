from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.core.errors import UserError
from bench.scoring.image_prompts import read_image_prompts

FILES = ["2.png", "10.png", "sub/a.jpg"]
PROMPTS = ["a bee, red", "a cat", "élan 猫"]


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_list_follows_the_order_of_the_images(tmp_path: Path) -> None:
    text = write(tmp_path, "p.txt", "\n".join(PROMPTS) + "\n")
    array = write(tmp_path, "p.json", json.dumps(PROMPTS))
    assert read_image_prompts(text, tmp_path, FILES) == PROMPTS
    assert read_image_prompts(array, tmp_path, FILES) == PROMPTS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", 'prompt,seed,file_name\na cat,1,10.png\nélan 猫,2,./sub/a.jpg\n"a bee, red",3,2.png\n'),
        ("p.csv", '\ufefffilename,caption\n2.png,"a bee, red"\n10.png,a cat\nsub/a.jpg,élan 猫\n'),
        ("p.tsv", "file\ttext\n10.png\ta cat\n2.png\ta bee, red\nsub/a.jpg\télan 猫\n"),
        ("p.jsonl", "\n".join(json.dumps({"image": f, "text": p}) for f, p in zip(FILES, PROMPTS, strict=True))),
        ("p.json", json.dumps(dict(zip(FILES, PROMPTS, strict=True)))),
        ("p.json", json.dumps([{"file_name": f, "prompt": p} for f, p in zip(FILES, PROMPTS, strict=True)][::-1])),
    ],
)
def test_a_table_is_matched_by_file_name(tmp_path: Path, name: str, text: str) -> None:
    assert read_image_prompts(write(tmp_path, name, text), tmp_path, FILES) == PROMPTS


def test_a_parquet_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": PROMPTS[::-1], "file_name": FILES[::-1]}), tmp_path / "p.parquet")
    assert read_image_prompts(tmp_path / "p.parquet", tmp_path, FILES) == PROMPTS


def test_text_files_beside_the_images(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for file, prompt in zip(FILES, PROMPTS, strict=True):
        (tmp_path / file).with_suffix(".txt").write_text(prompt + "\n", encoding="utf-8")
    assert read_image_prompts(None, tmp_path, FILES) == PROMPTS
    (tmp_path / "10.txt").unlink()
    with pytest.raises(
        UserError, match=r"1 of 3 images in .* have no prompt beside them \(10.txt\); give --prompts FILE"
    ):
        read_image_prompts(None, tmp_path, FILES)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("p.txt", "a\nb\n", "holds 2 prompts, .* 3 images; give one prompt per image in the order"),
        ("p.json", '["a", "b", "c", "d"]', "holds 4 prompts, .* 3 images"),
        ("p.json", '[{"file_name": "2.png"}]', "no column 'prompt'"),
        ("p.json", "[1, 2, 3]", "entry 1 is 1, not text"),
        ("p.json", "{", "is not valid JSON"),
        ("p.csv", "file_name,prompt\n2.png,a\n", r"no prompt for 2 of 3 images in .* \(10.png, sub/a.jpg\)"),
        (
            "p.csv",
            "file_name,prompt\n2.png,a\n10.png,b\nsub/a.jpg,c\nx.png,d\n",
            r"names 1 images .* not in .* \(x.png\)",
        ),
        ("p.csv", "file_name,prompt\n2.png,a\n./2.png,b\n", "two prompts for 2.png"),
        ("p.csv", "file_name,prompt\n2.png\n", "file name or prompt is missing"),
        ("p.csv", "path_to,prompt\n2.png,a\n", "no column 'file_name' .* it has path_to, prompt"),
        ("p.csv", "", "no column 'file_name' .* it has none"),
        ("p.jsonl", '"a"\n', "does not hold one JSON object per line"),
        ("p.parquet", "no parquet", "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        read_image_prompts(write(tmp_path, name, text), tmp_path, FILES)


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.json", "p.jsonl", "p.parquet"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_image_prompts(tmp_path / name, tmp_path, FILES)


def test_names_that_windows_wrote_are_found(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("file_name,prompt\n.\\a.png,a bee\nsub\\b.png,a cat\n")
    assert read_image_prompts(tmp_path / "p.csv", tmp_path, ["a.png", "sub/b.png"]) == ["a bee", "a cat"]


def test_a_backslash_can_be_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("file_name,prompt\na\\b.png,a bee\n")
    assert read_image_prompts(tmp_path / "p.csv", tmp_path, ["a\\b.png"]) == ["a bee"]


def test_an_empty_prompt_is_refused_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('file_name,prompt\na.png,a bee\nb.png,""\n')
    with pytest.raises(UserError, match="row 2 has an empty prompt"):
        read_image_prompts(tmp_path / "p.csv", tmp_path, ["a.png", "b.png"])


def test_a_byte_order_mark_beside_an_image_is_not_part_of_its_prompt(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffa bee\n", encoding="utf-8")
    assert read_image_prompts(None, tmp_path, ["a.png"]) == ["a bee"]
